# xattention(p, stride, block, ...): blocks by the sums of their antidiagonals.
#
# Paper: "XAttention: Block Sparse Attention with Antidiagonal Scoring",
# arXiv 2503.16428
# Picture: --k-len 128 --set p=0.7 --set stride=4 --set block=8 --set count=2
# Picture: --set kv_count=1
#
# The scores of the pairs with (q + k) % stride == stride - 1 stand for all: each tile
# of stride x stride pairs has one antidiagonal of them, and a softmax over the tiles of
# a row, those that reach into the future included where they touch the diagonal. A row
# of blocks takes the first block and its own, then the greatest until it has `p` of the
# mass. The released code has a table of p for layers and heads: `xattention_by_head`.
# It also has an option `keep_sink` that sets the first row of blocks and not the first
# column, which is taken anyway.

attention xattention(
    p : float = 0.9, stride = 8, block = 128, count = 32, kv_count = 8
) {
    heads count kv kv_count
    let strided = sum(
        scores where (q + k) % stride == stride - 1 by q // stride, k // stride
    ) / stride
    let shares = softmax(strided where k // stride <= q // stride)
    let chosen = top_p(
        p,
        sum(shares by q // block, k // block) per q // block,
        always k // block == 0 | k // block == q // block
    )
    mask causal & (q // block, k // block) in chosen
    assert mask within causal
}

attention xattention_by_head(stride = 8, block = 128, count = 32, kv_count = 8) {
    heads count kv kv_count
    input threshold[h] : float
    let strided = sum(
        scores where (q + k) % stride == stride - 1 by q // stride, k // stride
    ) / stride
    let shares = softmax(strided where k // stride <= q // stride)
    let chosen = top_p(
        threshold[h],
        sum(shares by q // block, k // block) per q // block,
        always k // block == 0 | k // block == q // block
    )
    mask causal & (q // block, k // block) in chosen
    assert mask within causal
}
