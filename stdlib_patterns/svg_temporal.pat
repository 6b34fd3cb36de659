# svg_temporal(text, frames, tokens, width): text, and a band in the order of places.
#
# Paper: "Sparse VideoGen: Accelerating Video Diffusion Transformers with
# Spatial-Temporal Sparsity", arXiv 2502.01776, its temporal heads.
# Picture: --k-len 104 --set text=8 --set frames=8 --set tokens=12 --set width=12
#
# `text` tokens, then `frames` of `tokens`. The band is that of `svg_spatial` after
# sorting the video by place, then frame: the same place in all frames is near. The
# released code tests its first-frame sink after sorting, so that it covers the first
# places of every frame; that is left out here.

def place(t, frames, tokens) = t % tokens * frames + t // tokens

pattern svg_temporal(text, frames, tokens, width) =
    q < text | k < text
    | abs(place(q - text, frames, tokens) - place(k - text, frames, tokens)) < width

attention claims(text = 226, frames = 13, tokens = 1350, width = 2688) {
    heads 1
    mask svg_temporal(text, frames, tokens, width)
    assert mask == svg_temporal(text, frames, tokens, width)[k, q]
    assert every q has k
}
