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
attention j(check: runtime = 1, plan: runtime = 2) { # E[reserved-name] E[reserved-name]
    heads 1
    input q_offset[h] : float                  # E[reserved-name]
    input cu_seqlens[b] : int                  # E[reserved-name]
    input lengths[b] : int                     # E[reserved-name]
    input return_lse[h] : float                # E[reserved-name]
    input scale[h] : float                     # E[reserved-name] W[unread-input]
    input v[k] : int                           # E[reserved-name] W[unread-input]
    input self[k] : int                        # E[reserved-name]
    mask window(check) & k < cu_seqlens + lengths + self[k] + plan
    score s + q_offset[h] + return_lse[h]
}
attention k2(path = 1, backend = 2, entry = 3) { # E[reserved-name] E[reserved-name] E[reserved-name]
    heads 1
    mask window(path + backend + entry)
}
attention static_ones(check = 1, plan = 2) {   # compiled in: no call passes them
    heads 1
    mask window(check + plan)
}
pattern patterns_too(check, plan) = window(check + plan)
