"""Live tiles without a closed form: interval analysis over a quad-tree of tiles.

In: a mask, the sizes of a call. Out: its live tiles, FULL or PARTIAL, exactly. Not its
job: patterns that isl can tile (`plan.tiling`).

The whole rectangle of tiles is split in four again and again. What interval
arithmetic proves empty is dropped, what it proves full is taken whole, and the rest is
split; a single tile that is still undecided is looked at point by point. So the cost
follows the live tiles and the boundary, never n_q x n_k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patternc.analysis.interval import Bounds, Box, possible
from patternc.ir.evaluate import Ints, Point, evaluate
from patternc.ir.nodes import Axis, BoolExpr

_CHUNK = 1 << 22  # pairs that are looked at together: 4 MiB of truth values


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of a call: `[qt_lo, qt_hi) x [0, kt_hi)`, each block_q x block_k."""

    block_q: int
    block_k: int
    qt_lo: int
    qt_hi: int
    kt_hi: int


@dataclass(frozen=True, slots=True)
class TileList:
    """Tiles in no particular order; `partial` tells PARTIAL from FULL."""

    qt: Ints
    kt: Ints
    partial: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Rectangles of tiles, half-open."""

    qt_lo: Ints
    qt_hi: Ints
    kt_lo: Ints
    kt_hi: Ints

    def where(self, chosen: NDArray[np.bool_]) -> _Boxes:
        return _Boxes(
            self.qt_lo[chosen],
            self.qt_hi[chosen],
            self.kt_lo[chosen],
            self.kt_hi[chosen],
        )


def list_tiles(
    mask: BoolExpr, head: int, n_k: int, params: Mapping[str, int], tiling: Tiling
) -> TileList:
    """The live tiles of one head. A tile beyond `n_k` is judged on its whole extent."""
    one = np.ones(1, dtype=np.int64)
    boxes = _Boxes(one * tiling.qt_lo, one * tiling.qt_hi, one * 0, one * tiling.kt_hi)
    full: list[_Boxes] = []
    single: list[_Boxes] = []
    if tiling.qt_lo >= tiling.qt_hi or tiling.kt_hi <= 0:
        boxes = boxes.where(np.zeros(1, dtype=np.bool_))
    while boxes.qt_lo.size:
        seen = possible(mask, _extent(boxes, head, n_k, params, tiling))
        shape = boxes.qt_lo.shape
        some = np.broadcast_to(seen.true, shape)
        every = some & ~np.broadcast_to(seen.false, shape)
        full.append(boxes.where(every))
        open_boxes = boxes.where(some & ~every)
        is_single = (open_boxes.qt_hi - open_boxes.qt_lo == 1) & (
            open_boxes.kt_hi - open_boxes.kt_lo == 1
        )
        single.append(open_boxes.where(is_single))
        boxes = _split(open_boxes.where(~is_single))
    tiles = [_expand(part) for part in full]
    tiles += [_look(mask, part, head, n_k, params, tiling) for part in single]
    return TileList(
        np.concatenate([part.qt for part in tiles] or [one[:0]]),
        np.concatenate([part.kt for part in tiles] or [one[:0]]),
        np.concatenate([part.partial for part in tiles] or [one[:0] > 0]),
    )


def _extent(
    boxes: _Boxes, head: int, n_k: int, params: Mapping[str, int], tiling: Tiling
) -> Box:
    """The positions that the boxes of tiles span."""

    def exactly(value: int) -> Bounds:
        number = np.asarray(value, dtype=np.int64)
        return Bounds(number, number)

    queries = Bounds(boxes.qt_lo * tiling.block_q, boxes.qt_hi * tiling.block_q - 1)
    keys = Bounds(boxes.kt_lo * tiling.block_k, boxes.kt_hi * tiling.block_k - 1)
    axes = {
        Axis.QUERY: queries,
        Axis.KEY: keys,
        Axis.HEAD: exactly(head),
        Axis.LENGTH: exactly(n_k),
    }
    return Box(axes, {name: exactly(value) for name, value in params.items()})


def _split(boxes: _Boxes) -> _Boxes:
    """Each box in four; a side of length 1 stays whole, and its empty half goes."""
    qt_mid = (boxes.qt_lo + boxes.qt_hi + 1) // 2
    kt_mid = (boxes.kt_lo + boxes.kt_hi + 1) // 2
    q_halves = ((boxes.qt_lo, qt_mid), (qt_mid, boxes.qt_hi))
    k_halves = ((boxes.kt_lo, kt_mid), (kt_mid, boxes.kt_hi))
    parts = [_Boxes(*q, *k) for q in q_halves for k in k_halves]
    every = _Boxes(
        np.concatenate([part.qt_lo for part in parts]),
        np.concatenate([part.qt_hi for part in parts]),
        np.concatenate([part.kt_lo for part in parts]),
        np.concatenate([part.kt_hi for part in parts]),
    )
    return every.where((every.qt_lo < every.qt_hi) & (every.kt_lo < every.kt_hi))


def _expand(boxes: _Boxes) -> TileList:
    """The tiles of boxes that are full."""
    widths = boxes.kt_hi - boxes.kt_lo
    sizes = (boxes.qt_hi - boxes.qt_lo) * widths
    box = np.repeat(np.arange(sizes.size), sizes)
    within = np.arange(box.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    qt = boxes.qt_lo[box] + within // widths[box]
    kt = boxes.kt_lo[box] + within % widths[box]
    return TileList(qt, kt, np.zeros(box.size, dtype=np.bool_))


def _look(
    mask: BoolExpr,
    tiles: _Boxes,
    head: int,
    n_k: int,
    params: Mapping[str, int],
    tiling: Tiling,
) -> TileList:
    """Decide single tiles point by point, a bounded number of pairs at a time."""
    some = np.zeros(tiles.qt_lo.size, dtype=np.bool_)
    every = np.zeros(tiles.qt_lo.size, dtype=np.bool_)
    batch = max(1, _CHUNK // (tiling.block_q * tiling.block_k))
    for start in range(0, some.size, batch):
        part = slice(start, start + batch)
        q = tiles.qt_lo[part, None, None] * tiling.block_q
        k = tiles.kt_lo[part, None, None] * tiling.block_k
        axes: dict[Axis, int | Ints] = {
            Axis.QUERY: q + np.arange(tiling.block_q)[:, None],
            Axis.KEY: k + np.arange(tiling.block_k),
            Axis.HEAD: head,
            Axis.LENGTH: n_k,
        }
        shape = (q.shape[0], tiling.block_q, tiling.block_k)
        seen = np.broadcast_to(evaluate(mask, Point(axes, params)), shape)
        some[part], every[part] = seen.any(axis=(1, 2)), seen.all(axis=(1, 2))
    return TileList(tiles.qt_lo[some], tiles.kt_lo[some], ~every[some])
