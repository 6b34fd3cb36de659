# longformer(w, n, d): a band, dilated by d, and n global tokens that see and are seen.
#
# Paper: "Longformer: The Long-Document Transformer", arXiv 2004.05150
# Picture: --k-len 48 --set w=6 --set n=3
#
# w is one-sided: Longformer's `attention_window` of 512 is w = 256. Global tokens are
# the first n here; in the paper they also have projections of their own, which is no
# matter of the mask.

pattern longformer(w, n, d = 1) = dilated_band(w, d) | sink(n) | sink(n)[k, q]

attention claims(w = 256, n = 1, d = 1) {
    heads 1
    mask longformer(w, n, d)
    assert mask == longformer(w, n, d)[k, q]
    assert dilated_band(w, d) within mask
    assert density < 0.13 at N = 4096
}
