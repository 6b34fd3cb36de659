# sink(n): every query sees the first n keys.
#
# Paper: "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453;
# also the global tokens of Longformer, arXiv 2004.05150.
# Picture: --k-len 32 --set n=4
#
# It does not keep a query from keys that come later: write `causal & sink(n)` for that.

pattern sink(n) = k < n

attention claims(n = 4) {
    heads 1
    mask sink(n)
    assert retention <= n
}
