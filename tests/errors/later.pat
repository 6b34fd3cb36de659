# What only later versions have.

attention chooses {
    heads 8
    let chosen = full                          # E[unsupported]
    mask full
}
attention scheduled {
    heads 8
    schedule hopper                            # E[unsupported]
    mask full
}
pattern product = Q @ K                        # E[unsupported]
