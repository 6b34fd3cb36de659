# window_inclusive(w): a query sees itself and the w keys before it.
#
# Paper: "Mistral 7B", arXiv 2310.06825, as FlashAttention counts the width.
# Picture: --k-len 32 --set w=8
#
# The width is the greatest distance, so w + 1 keys are seen: FlashAttention's
# `window_size=(w, 0)` and attention-gym's `sliding_window`. `window(w)` sees w keys.

pattern window_inclusive(w) = 0 <= q - k <= w

attention claims(w = 128) {
    heads 1
    mask window_inclusive(w)
    assert mask == window(w + 1)
    assert every q has k
    assert retention <= w + 1
}
