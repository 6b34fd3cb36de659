# block_diffusion(n, block): training of block diffusion: n noisy tokens, then n clean.
#
# Paper: "Block Diffusion: Interpolating Between Autoregressive and Diffusion Language
# Models" (BD3-LM), arXiv 2503.09573
# Picture: --k-len 48 --set n=24 --set block=6
#
# Queries and keys are the noisy copy x_t, then the clean copy x_0, as in the paper's
# code. A noisy block sees itself and the clean blocks before it; a clean block sees the
# clean blocks up to itself.

pattern block_diffusion(n, block) =
    q < n & k < n & block_diagonal(block)
    | q < n & k >= n & (k - n) // block < q // block
    | q >= n & k >= n & (k - n) // block <= (q - n) // block

attention claims(n = 1024, block = 16) {
    heads 1
    mask block_diffusion(n, block)
    assert every q has k
    assert mask within ~(q >= n & k < n)                # clean rows see no noise
    assert mask within ~(q < n & k >= n & k - n >= q)   # nor a noisy row its own answer
}
