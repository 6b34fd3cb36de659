# axis_blocks: blocks of a video with permuted axes, kept by a table for each head.
#
# Paper: "PAROAttention: Pattern-Aware ReOrdering for Efficient Sparse and Quantized
# Attention in Visual Generation Models", arXiv 2506.16054
# Picture: --k-len 464 --set text=16 --set frames=4 --set height=8 --set width=14
# Picture: --set block=16
#
# After `text` tokens, the video is cut into blocks in the order of place, then frame
# (HWF), for even heads, and column, row, frame (WHF) for odd ones: which of the paper's
# six orders a head has is a result of its calibration. The released code lays the
# blocks over text and video, so that one straddles the border; here they start with the
# video, and text sees and is seen by all.

def row_frame(t, frames, height, width) =
    t % (height * width) * frames + t // (height * width)
def column_frame(t, frames, height, width) =
    (t % width * height + t // width % height) * frames + t // (height * width)

attention axis_blocks(
    text = 226, frames = 13, height = 30, width = 45, block = 64
) {
    heads 48
    input bits[h, (k - text) // block, (k - text) // block] : bool
    mask q < text | k < text
        | bits[
            h,
            row_frame(q - text, frames, height, width) // block,
            row_frame(k - text, frames, height, width) // block
        ] for h % 2 == 0
    mask q < text | k < text
        | bits[
            h,
            column_frame(q - text, frames, height, width) // block,
            column_frame(k - text, frames, height, width) // block
        ] for h % 2 == 1
    assert (q < text | k < text) within mask
    assert every q has k
}
