# Heads may have masks of their own. `g` is the key/value head, `h` the query head; the
# cases must be disjoint and together cover every head, or the compiler shows one that
# has two masks or none.

attention mixed_heads(recent = 128) {
    heads 8 kv 4
    mask  causal                              for g in {0}
    mask  dilated(4 * recent, 4)              for h in range(2, 4)
    mask  streaming(16, recent)               otherwise
    assert retention <= 16 + recent           for g in {2, 3}
}
