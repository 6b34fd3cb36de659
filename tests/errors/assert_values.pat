# Asserts whose numbers are wrong.

attention a(n: runtime = 3, p = 0.5) {
    heads 8
    mask full
    assert retention <= n                      # E[not-constant]
    assert retention <= 3 for h in {8}         # E[head-range]
    assert density < p at N = 0                # E[bad-assert]
    assert density < p at N = N                # E[not-constant]
    assert mask within q // k == 0             # E[zero-division]
    assert density < p at N = 64
}
