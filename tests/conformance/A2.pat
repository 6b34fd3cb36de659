# FlashAttention-4: causal inside of every pair of blocks.
attention A2 { heads 1  mask causal[q % 128, k % 128] }
