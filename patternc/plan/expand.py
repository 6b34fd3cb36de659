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
from patternc.ir.evaluate import Ints, Point, Tables, evaluate, evaluate_int
from patternc.ir.nodes import Axis
from patternc.ir.walk import tables_of
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileCover, TileKind
from patternc.plan.order import token_order
from patternc.plan.quadtree import Question, list_tiles

LISTED = -1
"""The range number of a tile that comes from a list and not from a key range."""


@dataclass(frozen=True, slots=True)
class LiveTiles:
    """The tiles of one head that a call visits, ordered by `qt`, then by visit.

    `part` is the number of the tile's key range in the cover, or `LISTED`. `tokens`
    is None for tiles of tokens; else tiles hold positions, of queries and of keys,
    and `tokens[position]`, int64 [n], is the token there.
    """

    qt: Ints
    kt: Ints
    partial: NDArray[np.bool_]
    part: Ints
    tokens: Ints | None = None


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
    tables: Tables | None = None,
) -> LiveTiles:
    """The tiles of one head that overlap the call's rows and keys.

    `tables` holds the inputs of one batch element, without a batch axis. Raises
    `LookupError` if the tiles depend on an input that is not given, and `ValueError`
    if an order does not fit the call.
    """
    tables = tables or {}
    missing = tables_of(cover.mask) - set(tables)
    if missing:
        raise LookupError(f"the tiles depend on the input `{min(missing)}`")
    if cover.is_ordered(n_q, n_k, q_offset):
        tokens = token_order(cover.order, cover.layout, n_k, tables, head)
    elif cover.ranges is None:
        tokens = None
    else:
        return _ranged(cover.ranges, schedule, head, n_q, n_k, q_offset, params)
    rows = query_tiles(schedule, n_q, q_offset)
    queries = tile_positions(rows, schedule.block_q, q_offset, q_offset + n_q)
    key_tiles = range(-(-n_k // schedule.block_k))
    keys = tile_positions(key_tiles, schedule.block_k, 0, n_k)
    if tokens is not None:
        queries, keys = tokens[queries], tokens[keys]
    listed = list_tiles(Question(cover.mask, head, n_k, queries, keys, params, tables))
    qt, kt, partial = listed.qt + rows.start, listed.kt, listed.partial
    order = np.lexsort((kt, ~partial, qt))
    part = np.full(qt.shape, LISTED, dtype=np.int64)
    return LiveTiles(qt[order], kt[order], partial[order], part, tokens)


def tile_positions(tiles: range, block: int, start: int, stop: int) -> Ints:
    """The positions in `[start, stop)` of each tile, int64 [tiles, block].

    A ragged tile repeats its first or last position.
    """
    first = np.arange(tiles.start, tiles.stop, dtype=np.int64)[:, None] * block
    found = first + np.arange(block, dtype=np.int64)
    return np.clip(found, start, stop - 1) if found.size else found


def _ranged(
    ranges: tuple[KeyRange, ...],
    schedule: Schedule,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int,
    params: Mapping[str, int],
) -> LiveTiles:
    """The tiles of the key ranges, in the order of the ranges."""
    rows = query_tiles(schedule, n_q, q_offset)
    kt_hi = -(-n_k // schedule.block_k)
    qt = np.arange(rows.start, rows.stop, dtype=np.int64)
    axes: dict[Axis, int | Ints] = {Axis.QUERY_TILE: qt}
    axes |= {Axis.HEAD: head, Axis.LENGTH: n_k}
    parts = [range_tiles(part, qt, kt_hi, Point(axes, params)) for part in ranges]
    sizes = [tiles[0].size for tiles in parts]
    is_partial = [part.kind is TileKind.PARTIAL for part in ranges]
    rows_of = np.concatenate([tiles[0] for tiles in parts] or [qt[:0]])
    order = np.argsort(rows_of, kind="stable")
    return LiveTiles(
        rows_of[order],
        np.concatenate([tiles[1] for tiles in parts] or [qt[:0]])[order],
        np.repeat(np.asarray(is_partial, dtype=np.bool_), sizes)[order],
        np.repeat(np.arange(len(parts), dtype=np.int64), sizes)[order],
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


def plan_mask(
    kernel: Kernel,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    params: Mapping[str, int] | None = None,
    tables: Tables | None = None,
) -> NDArray[np.bool_]:
    """The mask of one head [n_q, n_k], rebuilt from the tile schedule alone.

    In the tokens of the caller, whatever order the tiles have. Raises `ValueError` if
    the schedule visits a tile twice: that is our bug.
    """
    offset = n_k - n_q if q_offset is None else q_offset
    schedule, cover, values = kernel.schedule, kernel.cover_of(head), params or {}
    tiles = live_tiles(cover, schedule, head, n_q, n_k, offset, values, tables)
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
        if tiles.tokens is not None:
            q, k = tiles.tokens[q], tiles.tokens[k]
        block: NDArray[np.bool_] | bool = True
        if partial:
            listed = part == LISTED or cover.ranges is None
            test = cover.mask if listed else (cover.ranges or ())[part].residual
            axes: dict[Axis, int | Ints] = {Axis.QUERY: q[:, None], Axis.KEY: k}
            axes |= {Axis.HEAD: head, Axis.LENGTH: n_k}
            block = evaluate(test, Point(axes, values, tables or {}))
        seen[np.ix_(q - offset, k)] = block
    return seen


def count_tiles(
    kernel: Kernel,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    params: Mapping[str, int] | None = None,
    tables: Tables | None = None,
) -> TileCount:
    """How many tiles a call visits for one head."""
    offset = n_k - n_q if q_offset is None else q_offset
    cover, schedule = kernel.cover_of(head), kernel.schedule
    tiles = live_tiles(cover, schedule, head, n_q, n_k, offset, params or {}, tables)
    total = len(query_tiles(schedule, n_q, offset)) * -(-n_k // schedule.block_k)
    return TileCount(tiles.qt.size, int(tiles.partial.sum()), total)


def head_classes(cover: TileCover) -> tuple[tuple[int, ...], ...]:
    """The heads of a cover that surely have the same tiles and mask, in order."""
    return fold.head_classes(cover.mask, cover.heads)
