# causal: a query sees itself and every key before it.
#
# The mask of decoder-only transformers: "Attention Is All You Need",
# arXiv 1706.03762

pattern causal = k <= q

attention claims {
    heads 1
    mask causal
    assert every q has k
    assert mask == full & ~(k > q)
}
