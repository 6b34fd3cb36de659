"""Live tiles without a closed form: interval analysis over a quad-tree of tiles.

In: a mask, and the tokens of the query tiles and key tiles of a call, in any order.
Out: its live tiles, FULL or PARTIAL, exactly. Not its job: patterns that isl can tile
(`plan.tiling`), which tokens a tile holds (`plan.expand`).

The whole rectangle of tiles is split in four again and again. What interval
arithmetic proves empty is dropped, what it proves full is taken whole, and the rest is
split; a single tile that is still undecided is looked at point by point. What the
mask asks of one side alone is known from a profile of its tokens (`plan.profile`). So
the cost follows the tokens, the live tiles and the boundary, never n_q x n_k, whether
the mask is arithmetic, data, or in an order of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patternc.analysis.interval import Bounds, Box, possible
from patternc.ir.evaluate import Ints, Point, Tables, evaluate
from patternc.ir.nodes import Axis, BoolExpr, Read
from patternc.plan.profile import Profile, profile_of
from patternc.plan.sides import Sides, sides_of
from patternc.plan.tables import TableBounds, python_range

_CHUNK = 1 << 22  # pairs that are looked at together: 4 MiB of truth values
_GLANCE = 7  # every 7th row and key is looked at first: few are a multiple of it


@dataclass(frozen=True, slots=True)
class TileList:
    """Tiles in no particular order; `partial` tells PARTIAL from FULL."""

    qt: Ints
    kt: Ints
    partial: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Question:
    """A mask at one head of a call, and the tokens of each of its tiles.

    `queries` [query tiles, block_q] and `keys` [key tiles, block_k] are positions of
    the sequence; a ragged tile repeats some of its own. The tiles need neither be
    consecutive nor in order: any rows of a schedule can be asked for.
    """

    mask: BoolExpr
    head: int
    length: int
    queries: Ints
    keys: Ints
    params: Mapping[str, int]
    tables: Tables

    def at(self, queries: Ints | None = None, keys: Ints | None = None) -> Point:
        """The point of evaluation, with the positions that are given."""
        axes: dict[Axis, int | Ints] = {Axis.HEAD: self.head, Axis.LENGTH: self.length}
        if queries is not None:
            axes[Axis.QUERY] = queries
        if keys is not None:
            axes[Axis.KEY] = keys
        return Point(axes, self.params, self.tables)


def list_tiles(question: Question) -> TileList:
    """The live tiles, numbered as in the question; judged on its tokens alone."""
    none = np.zeros(0, dtype=np.int64)
    if question.queries.size == 0 or question.keys.size == 0:
        return TileList(none, none, none > 0)
    tiles = []
    single_q, single_k = [none], [none]
    for level, q, k, is_full in _decided(question):
        if is_full:
            counts = (question.queries.shape[0], question.keys.shape[0])
            tiles.append(_expand(level, q, k, *counts))
        else:
            single_q.append(q)
            single_k.append(k)
    tiles.append(_look(question, np.concatenate(single_q), np.concatenate(single_k)))
    return TileList(
        np.concatenate([part.qt for part in tiles]),
        np.concatenate([part.kt for part in tiles]),
        np.concatenate([part.partial for part in tiles]),
    )


def tiles_at_most(question: Question) -> int:
    """How many tiles are not proved empty by intervals: never fewer than are live."""
    if question.queries.size == 0 or question.keys.size == 0:
        return 0
    counts = (question.queries.shape[0], question.keys.shape[0])
    return sum(
        _expand(level, q, k, *counts).qt.size for level, q, k, _ in _decided(question)
    )


def _decided(question: Question) -> Iterator[tuple[int, Ints, Ints, bool]]:
    """Nodes `(level, query nodes, key nodes)` that are full, and undecided tiles.

    What is empty does not come up.
    """
    sides = sides_of(question.mask, _python_box(question))
    queries = _profile(question, sides, Axis.QUERY)
    keys = _profile(question, sides, Axis.KEY)
    read = TableBounds(question.tables).bounds if question.tables else None
    axes = {
        Axis.HEAD: _exactly(question.head),
        Axis.LENGTH: _exactly(question.length),
    }
    params = {name: _exactly(value) for name, value in question.params.items()}
    level = max(len(queries.levels), len(keys.levels)) - 1
    q = k = np.zeros(1, dtype=np.int64)
    while q.size:
        known = {**queries.known(level, q), **keys.known(level, k)}
        seen = possible(sides.mask, Box(axes, params, read, known))
        some = np.broadcast_to(seen.true, q.shape)
        every = some & ~np.broadcast_to(seen.false, q.shape)
        if every.any():
            yield level, q[every], k[every], True
        is_open = some & ~every
        q, k = q[is_open], k[is_open]
        if level == 0:
            yield level, q, k, False
            return
        level -= 1
        q, k = _split(q, k, queries.nodes(level), keys.nodes(level))


def _profile(question: Question, sides: Sides, axis: Axis) -> Profile:
    is_query = axis is Axis.QUERY
    parts = sides.query if is_query else sides.key
    tokens = question.queries if is_query else question.keys
    return profile_of(parts, axis, tokens, question.at(), sides.by_step)


def _exactly(value: int) -> Bounds:
    number = np.asarray(value, dtype=np.int64)
    return Bounds(number, number, np.zeros_like(number))


def _python_box(question: Question) -> Box:
    """Bounds of everything in the call, in Python integers."""

    def between(lo: int, hi: int) -> Bounds:
        return Bounds(np.asarray([lo], dtype=object), np.asarray([hi], dtype=object))

    def read(expr: Read, _: tuple[Bounds, ...]) -> Bounds:
        return python_range(question.tables, expr.table)

    axes = {
        Axis.QUERY: between(int(question.queries.min()), int(question.queries.max())),
        Axis.KEY: between(int(question.keys.min()), int(question.keys.max())),
        Axis.HEAD: between(question.head, question.head),
        Axis.LENGTH: between(question.length, question.length),
    }
    params = {name: between(value, value) for name, value in question.params.items()}
    return Box(axes, params, read)


def _split(q: Ints, k: Ints, q_nodes: int, k_nodes: int) -> tuple[Ints, Ints]:
    """The four children of each node, less those beyond the last tile."""
    q_child = np.concatenate([2 * q, 2 * q, 2 * q + 1, 2 * q + 1])
    k_child = np.concatenate([2 * k, 2 * k + 1, 2 * k, 2 * k + 1])
    inside = (q_child < q_nodes) & (k_child < k_nodes)
    return q_child[inside], k_child[inside]


def _expand(level: int, q: Ints, k: Ints, q_tiles: int, k_tiles: int) -> TileList:
    """The tiles of nodes that are full."""
    heights = np.minimum((q + 1) << level, q_tiles) - (q << level)
    widths = np.minimum((k + 1) << level, k_tiles) - (k << level)
    sizes = heights * widths
    node = np.repeat(np.arange(sizes.size), sizes)
    within = np.arange(node.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    qt = (q << level)[node] + within // widths[node]
    kt = (k << level)[node] + within % widths[node]
    return TileList(qt, kt, np.zeros(node.size, dtype=np.bool_))


def _look(question: Question, qt: Ints, kt: Ints) -> TileList:
    """Decide single tiles point by point.

    A glance at a few rows and keys first: what holds both kinds of pairs is PARTIAL.
    """
    glance = slice(None, None, _GLANCE)
    some, every = _seen(question, qt, kt, glance)
    open_at = np.flatnonzero(~(some & ~every))
    some[open_at], every[open_at] = _seen(
        question, qt[open_at], kt[open_at], slice(None)
    )
    return TileList(qt[some], kt[some], ~every[some])


def _seen(
    question: Question, qt: Ints, kt: Ints, chosen: slice
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether some, and whether every, chosen pair of each tile is visible.

    A bounded number of pairs at a time.
    """
    some = np.zeros(qt.size, dtype=np.bool_)
    every = np.zeros(qt.size, dtype=np.bool_)
    queries, keys = question.queries[:, chosen], question.keys[:, chosen]
    batch = max(1, _CHUNK // (queries.shape[1] * keys.shape[1]))
    for start in range(0, qt.size, batch):
        part = slice(start, start + batch)
        rows, columns = queries[qt[part]][:, :, None], keys[kt[part]][:, None, :]
        seen = evaluate(question.mask, question.at(rows, columns))
        seen = np.broadcast_to(seen, (len(rows), rows.shape[1], columns.shape[2]))
        some[part], every[part] = seen.any(axis=(1, 2)), seen.all(axis=(1, 2))
    return some, every
