# vmoba(frames, height, ...): for each query of a video the blocks that suit it best.
#
# Paper: "VMoBA: Mixture-of-Block Attention for Video Diffusion Models",
# arXiv 2506.23858
# Picture: --k-len 128 --set frames=4 --set height=4 --set width=8 --set tile_f=2
# Picture: --set tile_y=2 --set tile_x=4 --set count=1 --set kv_count=1
#
# Layers take turns: blocks of frames (tile_y = height, tile_x = width), blocks of
# places in all frames (tile_f = frames), and both; one program each. The defaults are
# the 3-D layers at 480 x 832, 81 frames; the 2-D ones have tiles of 5 x 13, the 1-D
# ones 3 frames. Scores are shifted and scaled to 0..1, then blocks are taken, the own
# one first, until they have `tau` of the sum. A raster order of tokens is meant; `order
# ... by tile` with these tiles makes the blocks dense, and rows stay single queries.
#
# Where code and paper differ: the paper's scope is a head (`vmoba`), the released
# default a query of a head (`vmoba_by_query`); the code takes at least one other block
# (least = 2), the paper none (least = 1). Without training the paper takes the best
# `take` (`vmoba_topk`).

def counted(size, tile) = (size + tile - 1) // tile
def block(t, height, width, tile_f, tile_y, tile_x) =
    (t // (height * width) // tile_f * counted(height, tile_y)
     + t // width % height // tile_y) * counted(width, tile_x)
    + t % width // tile_x

attention vmoba(
    frames = 21, height = 30, width = 52, tile_f = 7, tile_y = 5, tile_x = 13,
    tau : float = 0.25, count = 12, kv_count = 12
) {
    heads count kv kv_count
    let gate = Q @ mean(K by block(k, height, width, tile_f, tile_y, tile_x))
    let chosen = top_p(
        tau,
        (gate - min(gate)) / (max(gate) - min(gate)),
        always block(k, height, width, tile_f, tile_y, tile_x)
            == block(q, height, width, tile_f, tile_y, tile_x)
    )
    mask (q, block(k, height, width, tile_f, tile_y, tile_x)) in chosen
}

attention vmoba_by_query(
    frames = 21, height = 30, width = 52, tile_f = 7, tile_y = 5, tile_x = 13,
    tau : float = 0.25, least = 2, count = 12, kv_count = 12
) {
    heads count kv kv_count
    let gate = Q @ mean(K by block(k, height, width, tile_f, tile_y, tile_x))
    let low = min(gate by q)
    let high = max(gate by q)
    let chosen = top_p(
        tau,
        (gate - low) / (high - low) per q,
        always block(k, height, width, tile_f, tile_y, tile_x)
            == block(q, height, width, tile_f, tile_y, tile_x),
        min least
    )
    mask (q, block(k, height, width, tile_f, tile_y, tile_x)) in chosen
}

attention vmoba_topk(
    frames = 21, height = 30, width = 52, tile_f = 7, tile_y = 5, tile_x = 13,
    take = 18, count = 12, kv_count = 12
) {
    heads count kv kv_count
    let gate = Q @ mean(K by block(k, height, width, tile_f, tile_y, tile_x))
    let chosen = top(
        take,
        gate per q,
        always block(k, height, width, tile_f, tile_y, tile_x)
            == block(q, height, width, tile_f, tile_y, tile_x)
    )
    mask (q, block(k, height, width, tile_f, tile_y, tile_x)) in chosen
}
