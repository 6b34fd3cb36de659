# A pattern is, for every head, a set of (query, key) pairs. `q` and `k` are absolute
# positions; a comparison of them is the set of pairs for which it holds.

attention causal_attention {
    heads 4 kv 2
    mask  k <= q
    assert every q has k                      # no query is left without a key
    assert mask within causal                 # `causal` comes from the standard patterns
}
