# FlashMask: causal document.
attention F4 {
    heads 1
    input doc[k] : int sorted
    mask  causal & doc[q] == doc[k]
}
