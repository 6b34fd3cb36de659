# nsa_selected(block, take, init, local, ...): blocks that a group of heads chooses.
#
# Paper: "Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse
# Attention", arXiv 2502.11089, its selected branch
# Picture: --k-len 128 --set block=8 --set take=5 --set count=2 --set kv_count=1
#
# A softmax over the mean keys of the blocks that end before the query, added up over
# the query heads of a key/value head. The first `init` blocks and the last `local` ones
# are always taken and count toward `take`. The paper compresses keys by a learned
# network over overlapping blocks of 32; here, as in fla's code, by the mean of each
# block. This is one of three softmaxes: the compressed branch, the window and the gates
# are others.

attention nsa_selected(
    block = 64, take = 16, init = 1, local = 2, count = 64, kv_count = 4
) {
    heads count kv kv_count
    let shares = softmax(
        Q @ mean(K by k // block) * scale where (k // block + 1) * block - 1 <= q
    )
    let others = shares
        where k // block >= init & q // block - k // block >= local
    let chosen = top(
        min(take - init - local, (N + block - 1) // block), others per q over g
    )
    mask causal & (
        (q, k // block) in chosen
        | k // block < init | q // block - k // block < local
    )
    assert mask within causal
}
