# dilated_band(w, d): every d-th key at distance w or less, on both sides.
#
# Paper: "Longformer: The Long-Document Transformer", arXiv 2004.05150, its dilated
# sliding window in encoders.
# Picture: --k-len 48 --set w=12 --set d=4
#
# The width counts positions on one side and includes its end; attention-gym's
# `dilated_sliding_window` agrees.

pattern dilated_band(w, d) = band(w) & (q - k) % d == 0

attention claims(w = 256, d = 4) {
    heads 1
    mask dilated_band(w, d)
    assert mask within band(w)
    assert mask == dilated_band(w, d)[k, q]
    assert dilated(w + 1, d) within mask
}
