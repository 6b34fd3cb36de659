# FlashAttention-4: each column has a first key of its own.
attention A4 {
    heads 1
    input bias[k] : int
    mask  k >= bias[k]
}
