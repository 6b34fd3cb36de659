# attention-gym: Flamingo cross-attention: the rows from lo to hi see an image's keys.
attention G6 {
    heads 1
    input lo[k // 100] : int
    input hi[k // 100] : int
    mask  lo[k // 100] <= q < hi[k // 100]
}
