# sparge(p, similar, ...): blocks by mass where their mean stands for them.
#
# Paper: "SpargeAttention: Accurate and Training-free Sparse Attention Accelerating Any
# Model Inference", arXiv 2502.18137
# Picture: --k-len 128 --set p=0.5 --set similar=-1 --set block_q=16 --set block_k=8
# Picture: --set count=2 --set kv_count=1
#
# A block stands for its tokens if the mean cosine of its pairs is above `similar`. Rows
# and columns of blocks that do not are kept whole; of the others each row of blocks
# keeps the greatest with at most `p` of the mass, the one that crosses p left out, and
# at least one. The mean of all keys is taken off the keys first, as SageAttention does.
# `sparge_part` keeps a part of the blocks in place of a share of the mass: the released
# code's other interface, with a part of 0.5 and a similarity of -0.1. On sm_90 that
# code has blocks of 64 queries and 128 keys. What its kernel skips while it runs is not
# here.

def counted(tokens, block) = (tokens + block - 1) // block

attention sparge(
    p : float = 0.98, similar : float = 0.6, block_q = 128, block_k = 64,
    count = 32, kv_count = 32
) {
    heads count kv kv_count
    let centred = K - mean(K)
    let rows = mean(Q by q // block_q)
    let columns = mean(centred by k // block_k)
    let unit_rows = norm(mean(Q / norm(Q) by q // block_q))
    let unit_columns = norm(mean(centred / norm(centred) by k // block_k))
    let alike_q = unit_rows * unit_rows > similar
    let alike_k = unit_columns * unit_columns > similar
    let coarse = softmax(rows @ columns * scale where k // block_k in alike_k)
    let chosen = top_p(p, coarse per q // block_q, crossing drop, min 1)
    mask (q // block_q, k // block_k) in chosen
        | ~(q // block_q in alike_q) | ~(k // block_k in alike_k)
}

attention sparge_part(
    part : float = 0.5, similar : float = -0.1, block_q = 128, block_k = 64,
    count = 32, kv_count = 32
) {
    heads count kv kv_count
    let centred = K - mean(K)
    let rows = mean(Q by q // block_q)
    let columns = mean(centred by k // block_k)
    let unit_rows = norm(mean(Q / norm(Q) by q // block_q))
    let unit_columns = norm(mean(centred / norm(centred) by k // block_k))
    let alike_q = unit_rows * unit_rows > similar
    let alike_k = unit_columns * unit_columns > similar
    let coarse = softmax(rows @ columns * scale where k // block_k in alike_k)
    let chosen = top(
        max(1, part * counted(N, block_k)), coarse per q // block_q
    )
    mask (q // block_q, k // block_k) in chosen
        | ~(q // block_q in alike_q) | ~(k // block_k in alike_k)
}

attention causal_sparge(
    p : float = 0.98, similar : float = 0.6, block_q = 128, block_k = 64,
    count = 32, kv_count = 8
) {
    heads count kv kv_count
    let centred = K - mean(K)
    let rows = mean(Q by q // block_q)
    let columns = mean(centred by k // block_k)
    let unit_rows = norm(mean(Q / norm(Q) by q // block_q))
    let unit_columns = norm(mean(centred / norm(centred) by k // block_k))
    let alike_q = unit_rows * unit_rows > similar
    let alike_k = unit_columns * unit_columns > similar
    let coarse = softmax(
        rows @ columns * scale
            where k // block_k in alike_k
            & k // block_k * block_k < (q // block_q + 1) * block_q
    )
    let chosen = top_p(p, coarse per q // block_q, crossing drop, min 1)
    mask causal & (
        (q // block_q, k // block_k) in chosen
        | ~(q // block_q in alike_q) | ~(k // block_k in alike_k)
    )
    assert mask within causal
}
