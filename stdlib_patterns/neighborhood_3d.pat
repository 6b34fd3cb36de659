# neighborhood_3d(frames, height, ...): the nearest keys of a video, on three axes.
#
# Paper: "Generalized Neighborhood Attention", arXiv 2504.16922
# Picture: --k-len 96 --set frames=4 --set height=4 --set width=6
# Picture: --set kernel_f=3 --set kernel_y=3 --set kernel_x=3
#
# `neighborhood` on the three axes of frames x height x width tokens.

pattern neighborhood_3d(
    frames, height, width, kernel_f, kernel_y, kernel_x,
    stride_f = 1, stride_y = 1, stride_x = 1,
    dilation_f = 1, dilation_y = 1, dilation_x = 1
) =
    neighborhood(frames, kernel_f, stride_f, dilation_f)[
        q // (height * width), k // (height * width)
    ]
    & neighborhood_2d(
        height, width, kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x
    )[q % (height * width), k % (height * width)]

attention claims(
    frames = 12, height = 32, width = 48, kernel_f = 5, kernel_y = 13, kernel_x = 13
) {
    heads 1
    mask neighborhood_3d(frames, height, width, kernel_f, kernel_y, kernel_x)
    assert density < 0.04585 at N = 18432            # 5 * 13 * 13 keys of 12 * 32 * 48
}
