# attention-gym: 2-D neighbourhood on 16 x 16 tokens in Z-order, kernel 5 x 5.
def column(t) = t % 2 + t // 4 % 2 * 2 + t // 16 % 2 * 4 + t // 64 % 2 * 8
def row(t)    = column(t // 2)

attention G9 {
    heads 1
    mask neighborhood(16, 5)[row(q), row(k)] & neighborhood(16, 5)[column(q), column(k)]
}
