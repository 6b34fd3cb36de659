# swin(width, window, shift): square windows of an image of `width` columns.
#
# Paper: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
# arXiv 2103.14030
# Picture: --k-len 96 --set width=12 --set window=4 --set shift=2
#
# Every other layer has shift = window // 2. The paper rolls the image and hides what
# the roll put together; without a roll that is one comparison an axis, with smaller
# windows at the border.

pattern swin(width, window = 7, shift = 0) =
    block_diagonal(window)[q // width - shift, k // width - shift]
    & block_diagonal(window)[q % width - shift, k % width - shift]

attention claims(width = 56, window = 7, shift = 3) {
    heads 1
    mask swin(width, window, shift)
    assert mask == swin(width, window, shift)[k, q]
    assert density < 0.0157 at N = 3136
}
