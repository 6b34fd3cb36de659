# sliding_tile(frames, height, ...): the tiles of a video around the tile of the query.
#
# Paper: "Fast Video Generation with Sliding Tile Attention" (STA), arXiv 2502.04507
# Picture: --k-len 96 --set frames=4 --set height=4 --set width=6
# Picture: --set tile_f=2 --set tile_y=2 --set tile_x=2
# Picture: --set window_f=1 --set window_y=1 --set window_x=3
#
# Tokens of one tile see the same tiles: on every axis, the `window` tiles around,
# pushed inwards at the ends. Windows are counted in tiles. An even window is NATTEN's,
# one tile more on the left; the released kernels silently take one more on the right.
# A raster order of tokens is meant: `order ... by tile(...)` makes the tiles dense.

def tiles(size, tile) = (size + tile - 1) // tile

pattern sliding_tile(
    frames, height, width, tile_f, tile_y, tile_x, window_f, window_y, window_x
) =
    neighborhood(tiles(frames, tile_f), window_f)[
        q // (height * width) // tile_f, k // (height * width) // tile_f
    ]
    & neighborhood(tiles(height, tile_y), window_y)[
        q // width % height // tile_y, k // width % height // tile_y
    ]
    & neighborhood(tiles(width, tile_x), window_x)[
        q % width // tile_x, k % width // tile_x
    ]

attention claims(
    frames = 30, height = 48, width = 80, tile_f = 6, tile_y = 8, tile_x = 8,
    window_f = 3, window_y = 3, window_x = 3
) {
    heads 1
    mask sliding_tile(
        frames, height, width, tile_f, tile_y, tile_x, window_f, window_y, window_x
    )
    assert mask == neighborhood_3d(            # GNA with a stride of one tile
        frames, height, width,
        window_f * tile_f, window_y * tile_y, window_x * tile_x, tile_f, tile_y, tile_x
    )
}
