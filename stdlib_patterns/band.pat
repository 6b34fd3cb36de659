# band(w): a query sees every key at distance w or less, on both sides.
#
# The bidirectional sliding window of Longformer, arXiv 2004.05150, for
# encoders. The width is inclusive: 2 w + 1 keys are seen.

pattern band(w) = abs(q - k) <= w

attention claims(w = 64) {
    heads 1
    mask band(w)
    assert mask == band(w)[k, q]
    assert window(w + 1) within mask
}
