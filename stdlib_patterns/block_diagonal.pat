# block_diagonal(b): a query sees the keys of its own block of b positions.
#
# Paper: "Blockwise Self-Attention for Long Document Understanding" (BlockBERT),
# arXiv 1911.02972, with the identity permutation.
# Picture: --k-len 48 --set width=12
#
# Blocks start at multiples of b.

pattern block_diagonal(b) = q // b == k // b

attention claims(width = 64) {
    heads 1
    mask block_diagonal(width)
    assert mask == block_diagonal(width)[k, q]
    assert mask within band(width - 1)
    assert retention <= width
}
