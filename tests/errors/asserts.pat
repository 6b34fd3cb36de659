# Asserts that assert nothing, or cannot be understood.

attention a(n: runtime = 3, p = 0.5) {
    heads 8
    mask full
    assert causal & (mask == full)             # E[bad-assert]
    assert (mask & full) within full           # E[bad-assert]
    assert q == k                              # E[bad-assert] E[bad-assert]
    assert full                                # E[bad-assert]
    assert union over q within full            # E[bad-assert]
    assert every k has q                       # E[bad-assert]
    assert retention >= 3                      # E[bad-assert]
    assert density != 0.5 at N = 64            # E[bad-assert]
    assert density < 0.5 at q = 64             # E[bad-assert]
    assert density < 1 + 1 at N = 64           # E[bad-assert]
    assert windw(3) within mask                # E[unknown-name]
}
