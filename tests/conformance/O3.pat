# MInference: vertical-slash of one head, the columns and diagonals in tables.
attention O3 {
    heads 1
    input vertical[k] : bool
    input slash[512] : bool
    mask  causal & (vertical[k] | slash[q - k])
}
