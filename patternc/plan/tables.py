"""Least and greatest elements of inputs over boxes of indices.

In: the inputs of a call, and bounds of the indices of a read. Out: bounds of what it
reads. Not its job: reads that depend on one side only (`plan.profile` knows those
exactly).

Each table that is read at indices of both sides gets a pyramid: the least and the
greatest element of every cell of 2^level elements a side. A box of indices meets at
most two cells a side of the level that fits it, so that a look-up costs the same
whatever the size of the box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from patternc.analysis.interval import Bounds
from patternc.ir.evaluate import Ints, Tables
from patternc.ir.nodes import Read

_Slice = tuple[int | None, ...]  # constant indices; None where a box of them is asked


@dataclass(frozen=True, slots=True)
class _Pyramid:
    """Level by level; a cell of level `n` is `2**n` elements long on every side."""

    least: tuple[Ints, ...]
    greatest: tuple[Ints, ...]


@dataclass(frozen=True, slots=True)
class TableBounds:
    """Bounds of reads; `bounds` is the `read` of an `analysis.interval.Box`."""

    tables: Tables
    _pyramids: dict[tuple[str, _Slice], _Pyramid] = field(default_factory=dict)

    def bounds(self, read: Read, indices: tuple[Bounds, ...]) -> Bounds:
        """What a read may give; beyond the table it gives 0, as in `ir.evaluate`."""
        table = self.tables[read.table]
        fixed: _Slice = tuple(
            int(at.lo) if np.ndim(at.lo) == 0 and at.lo == at.hi else None
            for at in indices
        )
        sizes = np.shape(table)
        outside = any(
            at is not None and not 0 <= at < size
            for at, size in zip(fixed, sizes, strict=True)
        )
        if outside or 0 in sizes:
            nothing = np.asarray(0, dtype=np.int64)
            return Bounds(nothing, nothing)
        pyramid = self._pyramid(read.table, fixed)
        boxes = [at for at, known in zip(indices, fixed, strict=True) if known is None]
        return _look_up(pyramid, boxes)

    def _pyramid(self, name: str, fixed: _Slice) -> _Pyramid:
        found = self._pyramids.get((name, fixed))
        if found is None:
            table = np.asarray(self.tables[name], dtype=np.int64)
            part = table[tuple(slice(None) if at is None else at for at in fixed)]
            found = _pyramid_of(np.asarray(part))
            self._pyramids[name, fixed] = found
        return found


def python_range(tables: Tables, name: str) -> Bounds:
    """Bounds of every element of a table and of 0, as Python integers."""
    table = np.asarray(tables[name], dtype=np.int64)
    lo, hi = int(table.min(initial=0)), int(table.max(initial=0))
    return Bounds(np.asarray([lo], dtype=object), np.asarray([hi], dtype=object))


def _pyramid_of(table: Ints) -> _Pyramid:
    least, greatest = [table], [table]
    while max(least[-1].shape, default=1) > 1:
        least.append(_halved(least[-1], np.minimum))
        greatest.append(_halved(greatest[-1], np.maximum))
    return _Pyramid(tuple(least), tuple(greatest))


def _halved(table: Ints, join: np.ufunc) -> Ints:
    """Pairs of neighbours joined along every axis; a last one alone stays."""
    for axis, size in enumerate(table.shape):
        table = join.reduceat(table, np.arange(0, size, 2), axis=axis)
    return table


def _look_up(pyramid: _Pyramid, boxes: list[Bounds]) -> Bounds:
    sizes = pyramid.least[0].shape
    if not boxes:
        return Bounds(pyramid.least[0], pyramid.greatest[0])
    shape = np.broadcast_shapes(*(np.shape(at.lo) for at in boxes))
    outside = np.zeros(shape, dtype=np.bool_)
    missed = np.zeros(shape, dtype=np.bool_)
    width = np.ones(shape, dtype=np.int64)
    ends: list[tuple[Ints, Ints]] = []
    for at, size in zip(boxes, sizes, strict=True):
        outside |= (at.lo < 0) | (at.hi >= size)
        missed |= (at.hi < 0) | (at.lo >= size)
        lo, hi = np.clip(at.lo, 0, size - 1), np.clip(at.hi, 0, size - 1)
        width = np.maximum(width, hi - lo + 1)
        ends.append((np.broadcast_to(lo, shape), np.broadcast_to(hi, shape)))
    level = np.ceil(np.log2(width)).astype(np.int64)
    least, greatest = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    for chosen in np.unique(level):
        here = level == chosen
        cells = [(lo[here] >> chosen, hi[here] >> chosen) for lo, hi in ends]
        corners = list(product(*cells))
        small, large = pyramid.least[chosen], pyramid.greatest[chosen]
        least[here] = np.minimum.reduce([small[corner] for corner in corners])
        greatest[here] = np.maximum.reduce([large[corner] for corner in corners])
    least, greatest = np.where(missed, 0, least), np.where(missed, 0, greatest)
    return Bounds(
        np.where(outside, np.minimum(least, 0), least),
        np.where(outside, np.maximum(greatest, 0), greatest),
    )
