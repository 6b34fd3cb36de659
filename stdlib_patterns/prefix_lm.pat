# prefix_lm(p): the first p keys are seen by all; the others causally.
#
# Paper: "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
# Transformer" (T5), arXiv 1910.10683, its prefix language model.
# Picture: --k-len 32 --set p=10
#
# FlashAttention-4 writes `(q < p & k < p) | k <= q`, attention-gym `k < p | k <= q`:
# the same set, as the second assert proves.

pattern prefix_lm(p) = causal | sink(p)

attention claims(p = 128) {
    heads 1
    mask prefix_lm(p)
    assert causal within mask
    assert mask == causal | (q < p & k < p)
    assert every q has k
}
