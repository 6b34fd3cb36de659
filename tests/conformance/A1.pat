# FlashAttention-4: block diagonal.
attention A1 { heads 1  mask block_diagonal(128) }
