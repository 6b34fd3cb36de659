# p[e1, e2] is the pattern p at other coordinates: q is replaced by e1 and k by e2.
# It gives blocks, shifts and transposes with no further syntax.

pattern block_causal(b) = causal[q // b, k // b]
pattern block_window(b, w) = window(w)[q // b, k // b]

attention blocks {
    heads 4 kv 2
    mask  block_causal(64)           for h in {0, 1}    # a query sees all of its block
    mask  causal & block_window(64, 8)   otherwise
    assert every q has k
}
