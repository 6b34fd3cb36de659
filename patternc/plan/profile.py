"""What is known of the tiles of one side, from single tiles up to all of them.

In: the one-sided parts of a mask, and the tokens of every tile of that side. Out: for
each level of a pyramid (single tiles, pairs of them, pairs of pairs, ...) the bounds of
each part over every node. Not its job: what follows for pairs of tiles
(`plan.quadtree`).

Each part is computed once at every token, so a profile costs as much as the tokens
have parts, whatever the order of the tokens and whatever data they read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from patternc.analysis.interval import Bounds
from patternc.ir.evaluate import Ints, Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    Compare,
    Const,
    Expr,
    Index,
    Not,
    Param,
    Read,
    Truth,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds of each part, level by level: node `i` of level `n` is the tiles
    `[i * 2**n, (i + 1) * 2**n)`, cut at the last tile."""

    levels: tuple[Mapping[Expr, Bounds], ...]
    tiles: int

    def nodes(self, level: int) -> int:
        """How many nodes a level has."""
        return -(-self.tiles >> level)

    def known(self, level: int, nodes: Ints) -> dict[Expr, Bounds]:
        """The bounds of every part at some nodes of a level."""
        found = {}
        for part, bounds in self.levels[min(level, len(self.levels) - 1)].items():
            step = None if bounds.step is None else bounds.step[nodes]
            found[part] = Bounds(bounds.lo[nodes], bounds.hi[nodes], step)
        return found


def profile_of(
    parts: tuple[Expr, ...], axis: Axis, tokens: Ints, at: Point, by_step: bool
) -> Profile:
    """The profile of one side.

    `tokens` [tiles, block] are the positions that `axis` takes in each tile (a ragged
    tile repeats some); `at` gives everything else. Steps are found only if `by_step`:
    they cost more than all the rest.
    """
    here = Point({**at.axes, axis: tokens}, at.params, at.tables)
    level: Mapping[Expr, Bounds] = {
        part: _per_tile(values_of(part, here), tokens.shape, by_step) for part in parts
    }
    levels = [level]
    count = tokens.shape[0]
    while count > 1:
        level = {part: _joined(bounds) for part, bounds in level.items()}
        levels.append(level)
        count = (count + 1) // 2
    return Profile(tuple(levels), tokens.shape[0])


def values_of(expr: Expr, at: Point) -> Ints:
    """The value of an expression; a truth value is 0 or 1."""
    match expr:
        case Const() | Index() | Param() | Binary() | Abs() | Read():
            return evaluate_int(expr, at)
        case Truth() | Compare() | All() | Any() | Not():
            return evaluate(expr, at).astype(np.int64)


def _per_tile(values: Ints, shape: tuple[int, ...], by_step: bool) -> Bounds:
    values = np.broadcast_to(values, shape)
    lo, hi = values.min(axis=1), values.max(axis=1)
    if not by_step:
        return Bounds(lo, hi)
    return Bounds(lo, hi, np.gcd.reduce(values - lo[:, None], axis=1))


def _joined(bounds: Bounds) -> Bounds:
    """Pairs of neighbours joined; a last one alone stays."""
    starts = np.arange(0, bounds.lo.size, 2)
    lo = np.minimum.reduceat(bounds.lo, starts)
    hi = np.maximum.reduceat(bounds.hi, starts)
    if bounds.step is None:
        return Bounds(lo, hi)
    apart = abs(bounds.lo - np.repeat(lo, 2)[: bounds.lo.size])
    return Bounds(lo, hi, np.gcd.reduceat(np.gcd(bounds.step, apart), starts))
