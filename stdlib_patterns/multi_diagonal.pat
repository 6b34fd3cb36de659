# multi_diagonal(tokens, w): places at distance w or less, in all frames.
#
# Paper: "Sparse-vDiT: Unleashing the Power of Sparse Attention to Accelerate Video
# Diffusion Transformers", arXiv 2506.03065, its multi-diagonal heads.
# Picture: --k-len 96 --set tokens=16 --set w=2
#
# Frames of `tokens` tokens; a place is the number of a token in its frame. The paper
# sorts by place and takes blocks near the diagonal, of a width that it does not give
# and in code that was not released; this is the set that such blocks approximate.

pattern multi_diagonal(tokens, w) = band(w)[q % tokens, k % tokens]

attention claims(tokens = 1024, w = 2) {
    heads 1
    mask multi_diagonal(tokens, w)
    assert mask == multi_diagonal(tokens, w)[k, q]
    assert density < 0.005 at N = 16384
}
