# radial(tokens, power, block, percent): the farther two frames, the narrower the band.
#
# Paper: "Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video
# Generation", arXiv 2506.19852
# Picture: --k-len 1600 --set tokens=200 --set power=256 --set block=8
#
# Frames of `tokens` tokens; power = 2^bits(tokens), as 4096 for 3600. At frame distance
# d = 0 everything is seen, at 1 a half frame to both sides, and at 2^i <= d < 2^(i+1)
# the distance max(block, percent / 100 * l) with l = power / 2^(i+1), in every
# (128 / l)-th frame where l < 128. Frame 0 is seen by all. This is the rule for the Wan
# model, for up to 128 frames; for HunyuanVideo d = 1 is full and frame 0 nothing
# special. The released code then rounds to blocks of 128 by a majority of columns, so
# that it keeps neither all of these pairs nor only these; here the pairs are exact.

def apart(frame, other) = abs(frame - other)
def thinned(room) = max(1, 128 // max(1, room))

pattern ring(tokens, first, room, block, percent) =
    first <= apart(q // tokens, k // tokens) < 2 * first
    & apart(q // tokens, k // tokens) % thinned(room) == 0
    & abs(q % tokens - k % tokens) <= max(block, percent * room // 100)

pattern radial(tokens, power, block = 128, percent = 100) =
    k < tokens
    | q // tokens == k // tokens
    | apart(q // tokens, k // tokens) == 1 & abs(q % tokens - k % tokens) <= tokens // 2
    | ring(tokens, 2, power // 4, block, percent)
    | ring(tokens, 4, power // 8, block, percent)
    | ring(tokens, 8, power // 16, block, percent)
    | ring(tokens, 16, power // 32, block, percent)
    | ring(tokens, 32, power // 64, block, percent)
    | ring(tokens, 64, power // 128, block, percent)

attention claims(tokens = 3600, power = 4096, block = 128, percent = 100) {
    heads 1
    mask radial(tokens, power, block, percent)
    assert block_diagonal(tokens) within mask
    assert every q has k
}
