# block_table: blocks of 128 x 128 pairs, kept or dropped by a table for each head.
#
# Paper: "SpargeAttention: Accurate and Training-free Sparse Attention Accelerating Any
# Model Inference", arXiv 2502.18137, as any method that chooses blocks beforehand
# Picture: --k-len 1024
#
# Row and column of the table are q // 128 and k // 128: the blocks are those of the
# table, whatever tiles a kernel has. `count` is the number of heads.

attention block_table(count = 1) {
    heads count
    input keep[h, q // 128, k // 128] : bool
    mask  keep[h, q // 128, k // 128]
}

attention causal_block_table(count = 1) {
    heads count
    input keep[h, q // 128, k // 128] : bool
    mask  causal & keep[h, q // 128, k // 128]
    assert mask within causal
}
