# Keys that a map does not have, and numbers that no selection can use.

attention keys {
    heads 8
    let coarse = mean(Q by q // 64) @ mean(K by k // 64)
    let finer = sum(coarse by q // 32)         # E[bad-key]
    let chosen = top(3, finer)
    mask k in chosen
}
attention token {
    heads 8
    let coarse = mean(Q by q // 64) @ mean(K by k // 64)
    let chosen = top(3, coarse where k <= q)   # E[bad-key]
    mask (q // 64, k // 64) in chosen
}
attention scope {
    heads 8
    let chosen = top(3, scores per q // 64)    # E[bad-key]
    mask (q, k) in chosen
}
attention per_head {
    heads 8
    let chosen = top(3, sum(scores by k + h))  # E[bad-key]
    mask k in chosen
}
attention four {
    heads 8
    let chosen = top(3, sum(scores by q, k, q - k, q + k))    # E[bad-key]
    mask (q, k, q - k, q + k) in chosen
}
attention members {
    heads 8
    let chosen = top(3, scores per q)
    mask k in chosen                           # E[arity]
}
attention bare {
    heads 8
    let chosen = top(3, scores per q)
    mask causal & chosen                       # E[arity]
}
attention channels {
    heads 8
    let chosen = top(3, K)                     # E[type]
    mask k in chosen
}
attention plain {
    heads 8
    let chosen = top(3, scores @ scores per q) # E[type]
    mask (q, k) in chosen
}
attention budget {
    heads 8
    let chosen = top(0 - 3, scores per q)      # E[bad-amount]
    mask (q, k) in chosen
}
attention share {
    heads 8
    let chosen = top_p(1.5, scores per q)      # E[bad-amount]
    mask (q, k) in chosen
}
attention bounds {
    heads 8
    let chosen = top_p(0.5, scores per q, min 8, max 4)       # E[bad-amount]
    mask (q, k) in chosen
}
attention amount {
    heads 8
    let chosen = top(sum(scores by k), scores per q)          # E[bad-key]
    mask (q, k) in chosen
}

attention widened_pairs {
    heads 1
    let pairs = top(3, scores per q)
    let wide = widened(pairs, 2)               # E[bad-key]
    mask (q, k) in wide
}

attention widened_by_nothing {
    heads 1
    let few = top(3, sum(scores by k))
    let wide = widened(few, 0)                 # E[bad-amount]
    mask k in wide
}

attention widened_by_length {
    heads 1
    let few = top(3, sum(scores by k))
    let wide = widened(few, N)                 # E[not-constant]
    mask k in wide
}
