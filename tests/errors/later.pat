# What only later versions have.

attention chooses {
    heads 8
    let mass = sum(V by k)                     # E[unsupported]
    let chosen = top(3, mass)
    mask k in chosen
}
pattern value = V == q                         # E[unsupported]
