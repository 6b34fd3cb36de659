# attention-gym: document mask, in its packed causal form: from the document's start on.
attention G5 {
    heads 1
    input start[k] : int sorted
    mask  start[q] <= k <= q
}
