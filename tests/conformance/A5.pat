# FlashAttention-4: each token has a window of its own.
attention A5 {
    heads 1
    input win[q] : int
    mask  causal & q - k <= win[q]
}
