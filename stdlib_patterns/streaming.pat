# streaming(n, w): the first n keys and the last w keys, causal (the A-shape).
#
# Paper: "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453;
# the A-shape of MInference, arXiv 2407.02490; the streaming heads of DuoAttention,
# arXiv 2410.10819.
# Picture: --k-len 48 --set n=4 --set w=8
#
# The cache of such a head never holds more than n + w keys. MInference serves with
# (128, 3968), DuoAttention trains with (128, 256) and deploys (64, 256). StreamingLLM
# also counts positions inside the cache, which is no mask and not done here.

pattern streaming(n, w) = causal & (sink(n) | window(w))

attention claims(n = 4, w = 128) {
    heads 1
    mask streaming(n, w)
    assert mask within causal
    assert window(w) within mask
    assert every q has k
    assert retention <= n + w
}
