# neighborhood_2d(height, width, ...): the nearest keys of an image, on two axes.
#
# Paper: "Neighborhood Attention Transformer", arXiv 2204.07143; with dilations
# arXiv 2209.15001, with strides "Generalized Neighborhood Attention", arXiv 2504.16922
# Picture: --k-len 96 --set height=8 --set width=12 --set kernel_y=3 --set kernel_x=5
#
# `neighborhood` on both axes of height x width tokens in rows.

pattern neighborhood_2d(
    height, width, kernel_y, kernel_x,
    stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1
) =
    neighborhood(height, kernel_y, stride_y, dilation_y)[q // width, k // width]
    & neighborhood(width, kernel_x, stride_x, dilation_x)[q % width, k % width]

attention claims(
    height = 56, width = 56, kernel_y = 7, kernel_x = 7,
    stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1
) {
    heads 1
    mask neighborhood_2d(
        height, width, kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x
    )
    assert density == 0.015625 at N = 3136           # 7 * 7 keys of 56 * 56, everywhere
}
