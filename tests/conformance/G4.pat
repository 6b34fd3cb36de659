# attention-gym: prefix-LM, as it and as FlashAttention-4 write it.
attention G4(p = 100) {
    heads 1
    mask k < p | k <= q
    assert mask == (q < p & k < p) | k <= q
    assert mask == prefix_lm(p)
}
