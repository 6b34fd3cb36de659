# tri_shape(n, w, last): streaming, and the last rows of the sequence see everything.
#
# Paper: "SCBench: A KV Cache-Centric Analysis of Long-Context Methods",
# arXiv 2412.10319; TriangleMix uses it in its deeper layers with (8, 512, 128).
# Picture: --k-len 48 --set n=4 --set w=8 --set last=6
#
# The defaults below are those of MInference's code, whose `n_last` is `last`. The last
# rows are counted from the end of the keys, not of a chunk of queries.

pattern tri_shape(n, w, last) = streaming(n, w) | causal & q >= N - last

attention claims(n = 128, w = 3968, last = 100) {
    heads 1
    mask tri_shape(n, w, last)
    assert mask within causal
    assert streaming(n, w) within mask
    assert every q has k
    assert density < 0.07 at N = 131072
}
