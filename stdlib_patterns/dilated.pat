# dilated(w, d): within a window of width w, every d-th key, counted from the query.
#
# Paper: "Longformer: The Long-Document Transformer", arXiv 2004.05150, its dilated
# sliding window, causal as for its autoregressive model.
# Picture: --k-len 48 --set w=24 --set d=4
#
# The width counts positions, not seen keys: about w / d keys are seen.

pattern dilated(w, d) = window(w) & (q - k) % d == 0

attention claims(w = 512, d = 4) {
    heads 1
    mask dilated(w, d)
    assert mask within window(w)
    assert every q has k
}
