# Names: unknown, repeated, reserved, hiding; parameters that cannot be.

pattern a(w) = windw(w)                        # E[unknown-name]
pattern a = full                               # E[duplicate-name]
pattern twice(w, w) = window(w)                # E[duplicate-name]
pattern q = full                               # E[reserved-name]
pattern c(k) = full                            # E[reserved-name]
pattern clamp = full                           # E[reserved-name]
pattern union = full                           # E[reserved-name]
pattern causal = k <= q                        # W[hides-standard]
pattern d(w: runtime) = window(w)              # E[bad-parameter]
pattern e(w: float) = full                     # E[bad-parameter]
pattern f(w = 3, n) = window(w) & sink(n)      # E[bad-parameter]
def g2(t) = t + unknown                        # E[unknown-name]
attention h2(b = 3) { heads 1 mask full }      # E[reserved-name]
attention i(p: runtime float) {                # E[bad-parameter]
    heads 1
    mask full for layre == 3                   # E[unknown-name]
}
