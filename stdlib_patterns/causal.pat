# causal: a query sees itself and every key before it.
#
# Paper: "Attention Is All You Need", arXiv 1706.03762, the mask of its decoder.
# Picture: --k-len 32
#
# Libraries disagree where there are fewer queries than keys: PyTorch's `is_causal`
# aligns the first query with the first key (top-left), FlashAttention since 2.1 the
# last query with the last key (bottom-right), as a decoder needs. Here positions are
# absolute, and a call's default q_offset = n_k - n_q is the bottom-right one;
# q_offset = 0 gives the other.

pattern causal = k <= q

attention claims {
    heads 1
    mask causal
    assert every q has k
    assert mask == full & ~(k > q)
}
