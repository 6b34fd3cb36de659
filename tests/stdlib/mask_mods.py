"""FlexAttention's way to write every standard pattern, as its users would.

In: nothing. Out: for each standard file the parameters of its attention, sizes, and a
`mask_mod(b, h, q, k)` on tensors. Written from the papers and from published code, and
reads nothing of patternc: two ways to one mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Oracle:
    """A mask_mod, what it corresponds to, and how long a sequence to try.

    `inputs` are those of the attention, without a batch axis.
    """

    mask_mod: MaskMod
    n: int
    values: Mapping[str, int] = field(default_factory=dict)
    heads: int = 1
    entry: str = "claims"
    inputs: Mapping[str, Tensor] = field(default_factory=dict)


def _causal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return q >= k


def _near(q: Tensor, k: Tensor, width: int) -> Tensor:
    return ((q - k) < width) & (q >= k)


def _window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return _near(q, k, 17)


def _window_inclusive(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q >= k) & (q - k <= 17)


def _band(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q - k <= 9) & (k - q <= 9)


def _sink(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (k < 5) & (q > -1)


def _streaming(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q >= k) & ((k < 5) | (q < k + 30))


def _dilated(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return _near(q, k, 50) & ((q - k) % 3 == 0)


def _dilated_band(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    distance = (q - k).abs()
    return (distance <= 40) & (distance % 3 == 0)


def _block_diagonal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return q // 48 == k // 48


def _prefix_lm(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return ((q < 60) & (k < 60)) | (k <= q)


def _tri_shape(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q >= k) & ((k < 7) | (q - k < 20) | (q >= 200 - 25))


def _longformer(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    distance = (q - k).abs()
    return ((distance <= 12) & (distance % 2 == 0)) | (q < 3) | (k < 3)


def _bigbird(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    x, y = q // 16, k // 16
    one = (x * 181 + y * 359 + 3 * 97) % 509
    two = (y * 181 + x * 359 + 4 * 97) % 509
    random = (one * two + x + 3 * y) % 8191 % 5 == 0
    last = 200 // 16  # the block of the last of 204 keys
    ends = (x == 0) | (y == 0) | (x == last) | (y == last)
    return random | ends | ((x - y).abs() < 2)


def _shared_prefix(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    same = (q - 70).div(25, rounding_mode="floor") == (k - 70).div(
        25, rounding_mode="floor"
    )
    return (q >= k) & ((k < 70) | same)


def _share_question(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    rest_q, rest_k = q % 100, k % 100
    answer_q = torch.where(rest_q < 40, -1, (rest_q - 40) // 20)
    answer_k = torch.where(rest_k < 40, -1, (rest_k - 40) // 20)
    seen = (answer_k == -1) | (answer_q == answer_k)
    return (q // 100 == k // 100) & seen & (q >= k)


def _block_diffusion(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """As in the released code: x_t, then x_0, each of 96 tokens in blocks of 16."""
    clean_q, clean_k = q >= 96, k >= 96
    block_q = torch.where(clean_q, (q - 96) // 16, q // 16)
    block_k = torch.where(clean_k, (k - 96) // 16, k // 16)
    diagonal = (block_q == block_k) & (clean_q == clean_k)
    offset = (block_q > block_k) & clean_k & ~clean_q
    block_causal = (block_q >= block_k) & clean_k & clean_q
    return diagonal | offset | block_causal


def _local_strided(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """vLLM's Phi-3-small, in blocks of 8: 3 local, each 8th."""
    row, column = q // 8, k // 8
    vertical = (column + h + 1) % 8 == 0
    return (q >= k) & ((row - column < 3) | vertical)


def _shifted_groups(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    shift = torch.where(h < 16, 0, 25)
    return (q >= k) & ((q + shift) // 50 == (k + shift) // 50)


def _sink_groups(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return _shifted_groups(b, h, q, k) | ((k < 4) & (q >= k))


def _grid(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Vision [10, 190), stride 7, 6 sinks, 13 local, 9 last rows."""
    length = (190 - 6 - 13) // 7 * 7
    row = (q - 19) % 7 == (10 - 19) % 7
    column = (k - 6) % 7 == (10 - 6) % 7
    rows = (q >= 19) & (q < 19 + length) & row
    columns = (k >= 6) & (k < 6 + length) & column
    near = (q - k < 13) | (k < 6) | (q >= 200 - 9)
    return (q >= k) & (near | rows | columns)


def _natten(
    q: Tensor, k: Tensor, length: int, kernel: int, stride: int = 1, dilation: int = 1
) -> Tensor:
    """One axis as in NATTEN's backend for FlexAttention."""
    group = q % dilation
    size = (length - group + dilation - 1) // dilation
    leader = torch.minimum(q // dilation // stride * stride + stride // 2, size - 1)
    left, right = kernel // 2, kernel // 2 + kernel % 2 - 1
    centre = torch.minimum(torch.clamp(leader, min=left), size - 1 - right)
    at = k // dilation
    return (k % dilation == group) & (at >= centre - left) & (at <= centre + right)


def _neighborhood(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return _natten(q, k, 200, 8, stride=3, dilation=3)


def _causal_neighborhood(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    size = (199 - q % 2 + 1) // 2
    leader = torch.minimum(q // 2 // 5 * 5 + 4, size - 1)
    near = (k // 2 <= q // 2) & (leader - k // 2 < 11)
    return (q % 2 == k % 2) & near


def _neighborhood_2d(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    vertical = _natten(q // 17, k // 17, 12, 5, stride=2)
    return vertical & _natten(q % 17, k % 17, 17, 6, dilation=2)


def _neighborhood_3d(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    frame = _natten(q // 42, k // 42, 5, 3)
    vertical = _natten(q % 42 // 7, k % 42 // 7, 6, 4)
    return frame & vertical & _natten(q % 7, k % 7, 7, 5)


def _swin(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """By regions of the rolled image, as in the paper's code: 12 x 16, windows of 4."""

    def window_and_region(t: Tensor) -> Tensor:
        y, x = (t // 16 - 2) % 12, (t % 16 - 2) % 16
        regions = [
            (axis >= size - 4).long() + (axis >= size - 2).long()
            for axis, size in ((y, 12), (x, 16))
        ]
        return ((y // 4 * 4 + x // 4) * 3 + regions[0]) * 3 + regions[1]

    return window_and_region(q) == window_and_region(k)


def _sliding_tile(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """6 x 5 x 8 tokens in tiles of 2 x 2 x 2, the windows 1, 3 and 3 tiles."""
    seen = q >= 0
    for size, inner, tile, window in ((6, 40, 2, 1), (5, 8, 2, 3), (8, 1, 2, 3)):
        count = -(-size // tile)
        own, other = (t // inner % size // tile for t in (q, k))
        centre = torch.clamp(own, window // 2, count - 1 - window // 2)
        seen = seen & ((other - centre).abs() <= window // 2)
    return seen


def _radial(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """11 frames of 20 tokens, blocks of 2, all with powers as in the released code."""
    distance = (q // 20 - k // 20).abs()
    offset = (q % 20 - k % 20).abs()
    seen = (k < 20) | (distance == 0) | ((distance == 1) & (offset <= 10))
    for apart in range(2, 11):
        room = 2048 / 2 ** int(apart).bit_length()
        kept = room >= 128 or apart % int(128 / room) == 0
        if kept:
            width = max(2, room * 0.01)
            seen = seen | ((distance == apart) & (offset <= width))
    return seen


def _svg_spatial(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q < 20) | (k < 20 + 30) | ((q - k).abs() < 45)


def _svg_temporal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """A table of places: 20 tokens of text, then 6 frames of 30."""
    order = (
        torch.arange(180).reshape(6, 30).t().flatten()
    )  # frames outermost, to places
    place = torch.empty(180, dtype=torch.long)
    place[order] = torch.arange(180)
    moved = torch.cat([torch.zeros(20, dtype=torch.long), place])
    return (q < 20) | (k < 20) | ((moved[q] - moved[k]).abs() < 25)


def _multi_diagonal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q % 40 - k % 40).abs() <= 3


_DOCUMENTS = torch.repeat_interleave(torch.arange(4), torch.tensor([60, 35, 1, 104]))
_UNTIL = torch.repeat_interleave(
    torch.tensor([25, 95, 95, 100]), torch.tensor([60, 35, 1, 104])
)
"""Documents with a prefix, all prefix, without one, and with a short one."""


def _documents(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    same = _DOCUMENTS[q] == _DOCUMENTS[k]
    return same & ((q >= k) | (k < _UNTIL[q]))


def _ancestors() -> Tensor:
    """Each of 40 drafts hangs on an earlier one."""
    parents = [-1, *((3 * draft + 1) % draft for draft in range(1, 40))]
    seen = torch.eye(40, dtype=torch.bool)
    for draft, parent in enumerate(parents):
        if parent >= 0:
            seen[draft] |= seen[parent]
    return seen


_ANCESTOR = _ancestors()


def _tree(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """All keys are drafts here, as a square call has no context."""
    return _ANCESTOR[q, k]


_KEEP = torch.arange(4 * 3 * 3).reshape(4, 3, 3) * 7 % 5 < 2


def _block_table(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return _KEEP[h, q // 128, k // 128]


_BITS = torch.arange(48 * 12 * 12).reshape(48, 12, 12) * 11 % 7 < 3


def _axis_blocks(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Places by permuted tensors: 10 of text, then a video [3, 8, 8] in blocks of 16."""
    video = torch.arange(192).reshape(3, 8, 8)
    places = []
    for axes in ((1, 2, 0), (2, 1, 0)):
        place = torch.empty(192, dtype=torch.long)
        place[video.permute(axes).flatten()] = torch.arange(192)
        places.append(torch.cat([torch.zeros(10, dtype=torch.long), place]))
    even, odd = (place // 16 for place in places)
    block_q = torch.where(h % 2 == 0, even[q], odd[q])
    block_k = torch.where(h % 2 == 0, even[k], odd[k])
    return (q < 10) | (k < 10) | _BITS[h, block_q, block_k]


_SINKS = torch.arange(32) % 5
_RECENT = torch.arange(32) * 3 % 17 + 1


def _per_head(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q >= k) & ((k < _SINKS[h]) | (q - k < _RECENT[h]))


ORACLES: dict[str, Oracle] = {
    "axis_blocks": Oracle(
        _axis_blocks,
        202,
        {"text": 10, "frames": 3, "height": 8, "width": 8, "block": 16},
        heads=48,
        entry="axis_blocks",
        inputs={"bits": _BITS},
    ),
    "band": Oracle(_band, 200, {"w": 9}),
    "bigbird": Oracle(_bigbird, 204, {"block": 16, "chance": 5, "seed": 3}),
    "block_diagonal": Oracle(_block_diagonal, 200, {"width": 48}),
    "block_table": Oracle(
        _block_table, 300, {"count": 4}, 4, "block_table", {"keep": _KEEP}
    ),
    "block_diffusion": Oracle(_block_diffusion, 192, {"n": 96, "block": 16}),
    "causal": Oracle(_causal, 200),
    "causal_neighborhood": Oracle(
        _causal_neighborhood, 199, {"n": 199, "kernel": 11, "stride": 5, "dilation": 2}
    ),
    "dilated": Oracle(_dilated, 200, {"w": 50, "d": 3}),
    "dilated_band": Oracle(_dilated_band, 200, {"w": 40, "d": 3}),
    "documents": Oracle(
        _documents,
        200,
        entry="prefix_documents",
        inputs={"doc": _DOCUMENTS, "until": _UNTIL},
    ),
    "grid": Oracle(
        _grid,
        200,
        {"start": 10, "end": 190, "stride": 7, "n": 6, "w": 13, "last": 9, "unit": 1},
    ),
    "local_strided": Oracle(
        _local_strided, 200, {"block": 8, "local": 3, "stride": 8}, heads=32
    ),
    "longformer": Oracle(_longformer, 200, {"w": 12, "n": 3, "d": 2}),
    "multi_diagonal": Oracle(_multi_diagonal, 200, {"tokens": 40, "w": 3}),
    "neighborhood": Oracle(
        _neighborhood, 200, {"n": 200, "kernel": 8, "stride": 3, "dilation": 3}
    ),
    "neighborhood_2d": Oracle(
        _neighborhood_2d,
        204,
        {"height": 12, "width": 17, "kernel_y": 5, "kernel_x": 6}
        | {"stride_y": 2, "dilation_x": 2},
    ),
    "neighborhood_3d": Oracle(
        _neighborhood_3d,
        210,
        {"frames": 5, "height": 6, "width": 7}
        | {"kernel_f": 3, "kernel_y": 4, "kernel_x": 5},
    ),
    "per_head": Oracle(
        _per_head,
        200,
        heads=32,
        entry="per_head",
        inputs={"sinks": _SINKS, "recent": _RECENT},
    ),
    "prefix_lm": Oracle(_prefix_lm, 200, {"p": 60}),
    "radial": Oracle(
        _radial, 220, {"tokens": 20, "power": 2048, "block": 2, "percent": 1}
    ),
    "share_question": Oracle(
        _share_question, 200, {"document": 100, "question": 40, "answer": 20}
    ),
    "shared_prefix": Oracle(_shared_prefix, 200, {"p": 70, "length": 25}),
    "shifted_groups": Oracle(_shifted_groups, 200, {"group": 50}, heads=32),
    "sink": Oracle(_sink, 200, {"n": 5}),
    "sink_groups": Oracle(_sink_groups, 200, {"group": 50, "n": 4}, heads=32),
    "sliding_tile": Oracle(
        _sliding_tile,
        240,
        {"frames": 6, "height": 5, "width": 8, "tile_f": 2, "tile_y": 2, "tile_x": 2}
        | {"window_f": 1, "window_y": 3, "window_x": 3},
    ),
    "streaming": Oracle(_streaming, 200, {"n": 5, "w": 30}),
    "svg_spatial": Oracle(_svg_spatial, 200, {"text": 20, "width": 45, "first": 30}),
    "svg_temporal": Oracle(
        _svg_temporal, 200, {"text": 20, "frames": 6, "tokens": 30, "width": 25}
    ),
    "swin": Oracle(_swin, 192, {"width": 16, "window": 4, "shift": 2}),
    "tree": Oracle(
        _tree, 40, {"nodes": 40}, entry="tree", inputs={"ancestor": _ANCESTOR}
    ),
    "tri_shape": Oracle(_tri_shape, 200, {"n": 7, "w": 20, "last": 25}),
    "window": Oracle(_window, 200, {"w": 17}),
    "window_inclusive": Oracle(_window_inclusive, 200, {"w": 17}),
}
