# Maps and selections that are none.

pattern product = Q @ K                        # E[wrong-place]
pattern scaled = scale == q                    # E[wrong-place]
pattern pair = (q, k) == 3                     # E[wrong-place]

attention types(count = 3) {
    heads 8 kv 2
    input table[k] : int
    let number = 3 + count
    let pattern_ = k < q                       # E[type]
    let rest = sum(scores by k) % 2            # E[type]
    let chain = 0 < sum(scores by k) < 1       # E[type]
    let equal = sum(scores by k) == 1          # E[type]
    let grouped = scores by k                  # E[type]
    let alone = scores per k                   # E[type]
    let two = softmax(scores, scores)          # E[arity]
    let few = top(3)                           # E[arity]
    let twice = top(3, scores over g, over g)  # E[type]
    let crossing_ = top(3, scores, crossing keep)      # E[type]
    let kept = top_p(0.5, scores, crossing half)       # E[type]
    let heads_ = sum(scores by k over k)       # E[type]
    let keys = sum(scores, k)                  # E[type]
    let named = count(scores)                  # E[type]
    let wide = widened(scores, 3)              # E[type]
    let wider = widened(again)                 # E[arity]
    let misspelt = softmax(score)              # E[unknown-name]
    let integers = softmax(table[k] == 1)      # E[type]
    let again = sum(scores by k)
    let again = sum(scores by q)               # E[duplicate-name]
    let scores = norm(K)                       # E[reserved-name]
    let check = norm(K)                        # E[reserved-name]
    mask k in again                            # E[type]
    mask full                                  for h == number    # E[unknown-name]
}

attention unread {
    heads 8
    let maximum = max(scores by k)             # W[unread-let]
    mask causal
}

attention dense {
    heads 8
    mask causal else dense when cheaper        # E[bad-mask]
}
