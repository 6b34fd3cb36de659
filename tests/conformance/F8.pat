# FlashMask: causal blockwise: a document sees itself, the last one sees all.
attention F8(last = 2) {
    heads 1
    input doc[k] : int sorted
    mask  causal & (doc[q] == doc[k] | doc[q] == last)
}
