# Numbers where there are none, names outside of their clause, weights that are none.

attention a(u = 0.5) {
    heads 8
    input slope[h] : float
    input doc[k] : int
    mask full
    mask s < 3                                 # E[wrong-place]
    mask q < u                                 # E[type]
    mask slope[u] == 0                         # E[type] E[type]
    score s + o                                # E[wrong-place]
    score s // 2                               # E[type]
    score s + full                             # E[type]
    score where(s < 0.5, 1, 2)                 # E[type] E[type]
    score where(q, s, s)                       # E[type]
    score slope[s]                             # E[type]
    score softcap(s)                           # E[arity]
    score exp                                  # E[arity]
    score bitlen(s)                            # E[type]
    score doc[u]                               # E[type]
}
