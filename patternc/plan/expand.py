"""The tile schedule in numbers.

In: a cover, a schedule and the sizes of a call. Out: arrays of the tiles that are
visited, and what follows from them: the mask rebuilt from the schedule alone, tile
counts. Not its job: deriving the schedule (`plan.tiling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patternc.ir import fold
from patternc.ir.evaluate import Ints, Point, evaluate, evaluate_int
from patternc.ir.nodes import Axis
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileCover, TileKind
from patternc.plan.quadtree import Tiling, list_tiles

LISTED = -1
"""The range number of a tile that comes from a list and not from a key range."""


@dataclass(frozen=True, slots=True)
class LiveTiles:
    """The tiles of one head that a call visits, ordered by `qt`, then by visit.

    `part` is the number of the tile's key range in the cover, or `LISTED`.
    """

    qt: Ints
    kt: Ints
    partial: NDArray[np.bool_]
    part: Ints


@dataclass(frozen=True, slots=True)
class TileCount:
    """Tiles of one head: visited, of these PARTIAL, and all there are."""

    visited: int
    partial: int
    total: int


def query_tiles(schedule: Schedule, n_q: int, q_offset: int) -> range:
    """The query tiles, by absolute position, that hold the rows of a call."""
    if n_q <= 0:
        return range(0)
    first = q_offset // schedule.block_q
    return range(first, (q_offset + n_q - 1) // schedule.block_q + 1)


def live_tiles(
    cover: TileCover,
    schedule: Schedule,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int,
    params: Mapping[str, int],
) -> LiveTiles:
    """The tiles of one head that overlap the call's rows and keys."""
    rows = query_tiles(schedule, n_q, q_offset)
    kt_hi = -(-n_k // schedule.block_k)
    if cover.ranges is None:
        tiling = Tiling(
            schedule.block_q, schedule.block_k, rows.start, rows.stop, kt_hi
        )
        listed = list_tiles(cover.mask, head, n_k, params, tiling)
        part = np.full(listed.qt.shape, LISTED, dtype=np.int64)
        return _ordered(listed.qt, listed.kt, listed.partial, part, by_key=True)
    qt = np.arange(rows.start, rows.stop, dtype=np.int64)
    axes: dict[Axis, int | Ints] = {Axis.QUERY_TILE: qt}
    axes |= {Axis.HEAD: head, Axis.LENGTH: n_k}
    parts = [range_tiles(part, qt, kt_hi, Point(axes, params)) for part in cover.ranges]
    sizes = [tiles[0].size for tiles in parts]
    partial = [part.kind is TileKind.PARTIAL for part in cover.ranges]
    return _ordered(
        np.concatenate([tiles[0] for tiles in parts] or [qt[:0]]),
        np.concatenate([tiles[1] for tiles in parts] or [qt[:0]]),
        np.repeat(np.asarray(partial, dtype=np.bool_), sizes),
        np.repeat(np.arange(len(parts), dtype=np.int64), sizes),
        by_key=False,
    )


def range_tiles(part: KeyRange, qt: Ints, kt_hi: int, at: Point) -> tuple[Ints, Ints]:
    """The tiles `(qt, kt)` of one key range for every query tile of `qt`."""
    lo = np.broadcast_to(evaluate_int(part.lo, at), qt.shape)
    hi = np.minimum(np.broadcast_to(evaluate_int(part.hi, at), qt.shape), kt_hi)
    held = np.broadcast_to(evaluate(part.guard, at), qt.shape)
    counts = np.where(held, np.maximum(0, -((lo - hi) // part.step)), 0)
    row = np.repeat(np.arange(qt.size), counts)
    nth = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return qt[row], lo[row] + nth * part.step


def _ordered(
    qt: Ints, kt: Ints, partial: NDArray[np.bool_], part: Ints, by_key: bool
) -> LiveTiles:
    order = np.lexsort((kt, ~partial, qt)) if by_key else np.argsort(qt, kind="stable")
    return LiveTiles(qt[order], kt[order], partial[order], part[order])


def plan_mask(
    kernel: Kernel,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    params: Mapping[str, int] | None = None,
) -> NDArray[np.bool_]:
    """The mask of one head [n_q, n_k], rebuilt from the tile schedule alone.

    Raises `ValueError` if the schedule visits a tile twice: that is our bug.
    """
    offset = n_k - n_q if q_offset is None else q_offset
    schedule, cover, values = kernel.schedule, kernel.cover_of(head), params or {}
    tiles = live_tiles(cover, schedule, head, n_q, n_k, offset, values)
    seen = np.zeros((n_q, n_k), dtype=np.bool_)
    visited: set[tuple[int, int]] = set()
    for qt, kt, partial, part in zip(
        tiles.qt.tolist(),
        tiles.kt.tolist(),
        tiles.partial.tolist(),
        tiles.part.tolist(),
        strict=True,
    ):
        if (qt, kt) in visited:
            raise ValueError(f"tile (qt={qt}, kt={kt}) of head {head} is visited twice")
        visited.add((qt, kt))
        q = np.arange(qt * schedule.block_q, (qt + 1) * schedule.block_q)
        q = q[(q >= offset) & (q < offset + n_q)]
        k = np.arange(kt * schedule.block_k, min((kt + 1) * schedule.block_k, n_k))
        block: NDArray[np.bool_] | bool = True
        if partial:
            test = cover.mask if cover.ranges is None else cover.ranges[part].residual
            axes: dict[Axis, int | Ints] = {Axis.QUERY: q[:, None], Axis.KEY: k}
            axes |= {Axis.HEAD: head, Axis.LENGTH: n_k}
            block = evaluate(test, Point(axes, values))
        seen[q[0] - offset : q[-1] - offset + 1, k[0] : k[-1] + 1] = block
    return seen


def count_tiles(
    kernel: Kernel,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    params: Mapping[str, int] | None = None,
) -> TileCount:
    """How many tiles a call visits for one head."""
    offset = n_k - n_q if q_offset is None else q_offset
    cover, schedule = kernel.cover_of(head), kernel.schedule
    tiles = live_tiles(cover, schedule, head, n_q, n_k, offset, params or {})
    total = len(query_tiles(schedule, n_q, offset)) * -(-n_k // schedule.block_k)
    return TileCount(tiles.qt.size, int(tiles.partial.sum()), total)


def head_classes(cover: TileCover) -> tuple[tuple[int, ...], ...]:
    """The heads of a cover that surely have the same tiles and mask, in order."""
    return fold.head_classes(cover.mask, cover.heads)
