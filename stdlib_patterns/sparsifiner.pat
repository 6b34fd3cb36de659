# sparsifiner(percent, ...): for each query the keys with the best predicted scores.
#
# Paper: "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision
# Transformers", arXiv 2303.13755
# Picture: --k-len 50 --set count=1
#
# A small trained network predicts the scores, so a call gives them; token 0 is the
# class token, which sees everything. The number of keys is rounded up: 50 of 197.

attention sparsifiner(percent = 25, count = 6) {
    heads count
    input predicted[h, q, k] : float
    let best = top((percent * N + 99) // 100, predicted[h, q, k] per q)
    mask q == 0 | (q, k) in best
}
