# attention-gym: a tree of 64 draft tokens behind 192 tokens of context.
attention G14a(p = 192) {
    heads 1
    input ancestor[64, 64] : bool
    mask  k < p | ancestor[q, k - p]
}
