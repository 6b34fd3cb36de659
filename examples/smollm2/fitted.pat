# phi3_small and a_shape scaled down to the 2,048 tokens of the sample, so that they
# drop something: a window of 4 blocks instead of 16, of 448 tokens instead of 3,968.

pattern strided(local, vert)     = window(local) | (k + h + 1) % vert == 0

attention phi3_small_2k {
    heads 9 kv 3
    mask  causal & strided(4, 8)[q // 64, k // 64]
    assert union over h == causal
    assert mask within causal
    assert every q has k
}

attention a_shape_2k {
    heads 9 kv 3
    mask streaming(64, 448)
    assert density < 0.22 at N = 2048
}
