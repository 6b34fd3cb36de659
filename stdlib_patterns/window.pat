# window(w): a query sees itself and the w - 1 keys before it.
#
# The causal sliding window of Mistral 7B, arXiv 2310.06825 The width is
# exclusive: w keys are seen, the farthest at distance w - 1.

pattern window(w) = 0 <= q - k < w

attention claims(w = 128) {
    heads 1
    mask window(w)
    assert mask within causal
    assert every q has k
    assert retention <= w
}
