# FlashMask: QK-sparse: causal, but no pair inside the masked segment.
attention F11(segment = 1) {
    heads 1
    input doc[k] : int sorted
    mask  causal & ~(doc[q] == segment & doc[k] == segment)
}
