# band(w): a query sees every key at distance w or less, on both sides.
#
# Paper: "Longformer: The Long-Document Transformer", arXiv 2004.05150, its sliding
# window in encoders.
# Picture: --k-len 32 --set w=5
#
# The width is one-sided and inclusive: 2 w + 1 keys are seen. Longformer's own
# `attention_window` counts both sides: 512 there is w = 256 here.

pattern band(w) = abs(q - k) <= w

attention claims(w = 64) {
    heads 1
    mask band(w)
    assert mask == band(w)[k, q]
    assert window(w + 1) within mask
}
