# window(w): a query sees itself and the w - 1 keys before it.
#
# Paper: "Mistral 7B", arXiv 2310.06825
# Picture: --k-len 32 --set w=8
#
# The width is exclusive, as in Transformers' `sliding_window`: w keys are seen, the
# farthest at distance w - 1. FlashAttention's `window_size=(w, 0)` and attention-gym's
# `sliding_window` see one more: that is `window_inclusive(w)`.

pattern window(w) = 0 <= q - k < w

attention claims(w = 128) {
    heads 1
    mask window(w)
    assert mask within causal
    assert every q has k
    assert retention <= w
}
