# FlashMask: document.
attention F5 {
    heads 1
    input doc[k] : int sorted
    mask  doc[q] == doc[k]
}
