# quest(budget, page, newest, ...): for each query the pages with the greatest bound.
#
# Paper: "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
# arXiv 2406.10774
# Picture: --k-len 128 --set budget=32 --set page=8 --set count=2 --set kv_count=1
#
# For decoding: the least and the greatest key of a page, channel by channel, bound the
# product of a query with any key in it. max(3, budget / page) pages are taken for each
# query head; `newest` says how many of the newest ones are taken first, which the paper
# does not do. The first two layers of a model stay dense.

attention quest(budget = 1024, page = 16, newest = 0, count = 32, kv_count = 32) {
    heads count kv kv_count
    let bound = relu(Q) @ max(K by k // page) - relu(-Q) @ min(K by k // page)
    let pages = top(
        min(max(3, budget // page), (N + page - 1) // page),
        bound where k // page <= q // page per q,
        always q // page - k // page < newest
    )
    mask causal & (q, k // page) in pages
    assert mask within causal
}
