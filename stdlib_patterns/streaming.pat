# streaming(n, w): the first n keys and the last w keys, causal.
#
# StreamingLLM, arXiv 2309.17453; the A-shape of MInference, arXiv 2407.02490; the
# streaming heads of DuoAttention, arXiv 2410.10819. The cache of such a head never
# holds more than n + w keys.

pattern streaming(n, w) = causal & (sink(n) | window(w))

attention claims(n = 4, w = 128) {
    heads 1
    mask streaming(n, w)
    assert mask within causal
    assert window(w) within mask
    assert every q has k
    assert retention <= n + w
}
