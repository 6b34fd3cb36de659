# What is found only when patterns are put in place.

pattern zero = q // 0 == k                     # E[zero-division]
pattern maybe = k % (q - k) == 0               # E[zero-division]
pattern by_head = q // h == k                  # E[zero-division]
pattern fine = q // max(h, 1) == k
pattern by(w) = q // w == k                    # E[zero-division]
pattern uses = by(k)
pattern far = q * q * q <= k                   # E[overflow]
pattern farther = 9223372036854775807 + k < q  # E[overflow]
attention no_zero(w: runtime = 3) {
    heads 1
    mask q % w == 0                            # E[zero-division]
}
