# What only later versions have.

attention chooses {
    heads 8
    let chosen = full                          # E[unsupported]
    mask full
}
pattern product = Q @ K                        # E[unsupported]
