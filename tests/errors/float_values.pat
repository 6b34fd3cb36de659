# What only the values of numbers show.

pattern near = q - k < 3
attention a(c = 0.0, n: runtime = 3) {
    heads 8
    mask full
    score s / c            for h == 0          # E[zero-division]
    score softcap(s, 0)    for h == 1          # E[zero-division]
    score s + q // k       for h == 2          # E[zero-division]
    score s + k * k * k    for h == 3          # E[overflow]
    output where(near, o, v) for h == 0        # E[wrong-place]
    sink where(near, 0.5, 1) for h == 0        # E[wrong-place]
    weights sigmoid(n)     for h == 0          # E[not-constant]
}
