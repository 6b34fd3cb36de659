# moba(chunk, take, ...): for each query the chunks whose mean key suits it best.
#
# Paper: "MoBA: Mixture of Block Attention for Long-Context LLMs", arXiv 2502.13189
# Picture: --k-len 128 --set chunk=16 --set take=3 --set count=2 --set kv_count=1
#
# The own chunk is always one of the `take`, and no chunk from the future is. The
# paper's scaling runs have chunks of 512 and 3 of them, its models for long texts up to
# 4096 and 12; MInference's configuration for 256K has 4096 and 6. Rows are single
# queries: a kernel visits every tile that one of its queries needs.

attention moba(chunk = 512, take = 3, count = 32, kv_count = 8) {
    heads count kv kv_count
    let gate = Q @ mean(K by k // chunk) where k // chunk <= q // chunk
    let chosen = top(
        min(take, (N + chunk - 1) // chunk),
        gate per q,
        always k // chunk == q // chunk
    )
    mask causal & (q, k // chunk) in chosen
    assert mask within causal
}
