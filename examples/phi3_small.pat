# S2-Attention with heterogeneous shards, as in Phi-3-small: a local window of blocks,
# and block columns that shift from head to head, so that together the heads see
# every context position.

pattern strided(local, vert)     = window(local) | (k + h + 1) % vert == 0

attention phi3_small {
    heads 32 kv 8
    mask  causal & strided(16, 8)[q // 64, k // 64]
    assert union over h == causal                          # every context position is seen by some head
    assert mask within causal                              # no future leak
    assert every q has k                                   # no empty row
}
