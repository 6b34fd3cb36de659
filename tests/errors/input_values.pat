# Axes of inputs, places where they are read, and what their values can do.

attention a {
    heads 8
    input folded[k % 2] : int                  # E[bad-input]
    input apart[q - k] : int                   # E[bad-input]
    input early[k + 5] : int                   # E[bad-input]
    input none[0] : int                        # E[bad-input]
    input long[N] : int                        # E[bad-input]
    input backwards[-k] : int                  # E[bad-input]
    mask folded[k] + apart[k] + early[k] + none[k] + long[k] + backwards[k] == 0
}
attention c(n: runtime = 3) {
    heads 8
    input reach[q] : int
    input block[q // 64] : bool
    input pace[k] : int
    input slope[q] : float
    mask q - k < reach[k]                      # E[bad-read]
        | block[q // 32]                       # E[bad-read]
    mask q % pace[k] == 0                      # E[zero-division] E[case-overlap]
    mask pace[k] * pace[q] * pace[k] == 0      # E[overflow] E[case-overlap]
        | (reach[q] == 3)[k, q]                # E[bad-read]
    score s + slope[q + 1]                     # E[bad-read]
}
attention e {
    heads 8
    input group[h] : int
    mask full for group[h] == 0                # E[not-constant]
}
