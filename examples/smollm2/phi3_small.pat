# ../phi3_small.pat with the heads of SmolLM2-135M: 9 query heads, 3 key/value heads.
# Nine heads still cover everything between them.

pattern strided(local, vert)     = window(local) | (k + h + 1) % vert == 0

attention phi3_small {
    heads 9 kv 3
    mask  causal & strided(16, 8)[q // 64, k // 64]
    assert union over h == causal
    assert mask within causal
    assert every q has k
}
