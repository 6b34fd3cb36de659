# longheads(window, take, begin, own, ...): for each query and head the best chunks.
#
# Paper: "LongHeads: Multi-Head Attention is Secretly a Long Context Processor",
# arXiv 2402.10685
# Picture: --k-len 128 --set window=8 --set take=6 --set begin=48 --set count=1
# Picture: --set kv_count=1
#
# The first chunk, the query's own and the one before it are always taken and count.
# Queries before `begin` see every key up to their own. The mean output of attention
# inside a chunk attends to the chunk's keys once more, and what that gives stands for
# the chunk, all of it before rotary positions. No map reads `V`, nor keys that the call
# does not have: so a call gives the scores of chunks as `rank`. The paper then numbers
# positions anew inside the chosen chunks, which no mask can say: this is the choice
# only. The released code hides a query's own key (own = 0); here it is seen.

attention longheads(
    window = 256, take = 16, begin = 4096, own = 1, count = 32, kv_count = 32
) {
    heads count kv kv_count
    input rank[h, q, k // window] : float
    let chosen = top(
        min(take, (N + window - 1) // window),
        rank[h, q, k // window] where k // window <= q // window per q,
        always k // window == 0 | 0 <= q // window - k // window <= 1
    )
    mask causal & (q < begin | (q, k // window) in chosen & q - k >= 1 - own)
    assert mask within causal
}
