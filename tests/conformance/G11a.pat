# attention-gym: Sparse VideoGen, spatial: 8 frames of 60, 2 of them rounded to 16s.
attention G11a(frame = 60, w = 2, r = 16) {
    heads 1
    mask svg_spatial(32, w * frame // r * r)
}
