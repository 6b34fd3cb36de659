# block_topk(blocks, block, ...): for each block of queries the best blocks of keys.
#
# Paper: "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic
# Sparse Attention", arXiv 2407.02490, its block-sparse heads
# Picture: --k-len 128 --set blocks=5 --set block=8 --set count=2 --set kv_count=1
#
# By the product of the mean query and the mean key, without a softmax. The released
# code pads the last block with zeros before it takes the mean; here it is the mean of
# the tokens that are there, which is the same where `block` divides the length.

attention block_topk(blocks = 100, block = 64, count = 32, kv_count = 8) {
    heads count kv kv_count
    let products = mean(Q by q // block) @ mean(K by k // block)
    let chosen = top(
        min(blocks, (N + block - 1) // block),
        products where k // block <= q // block per q // block
    )
    mask causal & (q // block, k // block) in chosen
    assert mask within causal
}
