# svg_spatial(text, width, first): text, and a band of video tokens around the query.
#
# Paper: "Sparse VideoGen: Accelerating Video Diffusion Transformers with
# Spatial-Temporal Sparsity", arXiv 2502.01776, its spatial heads.
# Picture: --k-len 96 --set text=8 --set width=20
#
# `text` tokens come first, then frames. The width is exclusive: distances below it are
# seen; published is the number of frames times the tokens of a frame, rounded down to
# blocks of 128. `first` makes the first frame seen by all: give its tokens.

pattern svg_spatial(text, width, first = 0) =
    q < text | k < text + first | abs(q - k) < width

attention claims(text = 226, width = 2688, first = 0) {
    heads 1
    mask svg_spatial(text, width, first)
    assert svg_spatial(text, width) within mask
    assert band(width - 1) within mask
    assert every q has k
}
