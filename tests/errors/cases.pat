# Cases that overlap, leave a head out, or name heads that there are not.

attention a { heads 0 mask full }              # E[heads]
attention b2 { heads 65537 mask full }         # E[heads]
attention c { heads 8 kv 3 mask full }         # E[heads]
attention d { heads N mask full }              # E[not-constant]
attention e(n: runtime = 3) {
    heads n                                    # E[not-constant]
    mask full
}
attention overlap {
    heads 8 kv 2
    mask full    for g in {0}
    mask causal  for h in {3, 4}               # E[case-overlap]
    mask full    for h >= 5
}
attention missing {
    heads 8
    mask full    for h in {0, 1}
    mask causal  for h in range(3, 8)          # E[case-missing]
}
attention twice {
    heads 8
    mask full
    mask causal  otherwise                     # E[no-head]
}
attention defaults {
    heads 8
    mask full    for h == 0
    mask causal  otherwise
    mask full    otherwise                     # E[case-overlap]
}
attention strange {
    heads 8 kv 2
    mask full    for g in {0, 2}               # E[head-range]
    mask causal  otherwise
}
attention stranger {
    heads 8
    mask full    for h in range(6, 9)          # E[head-range]
    mask causal  otherwise
}
attention nobody {
    heads 8
    mask full    for h > 7                     # E[no-head]
    mask causal  otherwise
}
attention varying {
    heads 8
    mask full    for q > 7                     # E[not-constant]
    mask causal  otherwise
}
