"""Exact numbers of visible pairs.

In: a mask and a length. Out: how many pairs of one head are visible among N x N, and a
closed formula in N. Not its job: tiles (`plan.expand.count_tiles`).

For quasi-affine masks the visible keys of each query are disjoint ranges with bounds
in closed form (isl), so counting costs O(N), never O(N^2). The count is a
quasi-polynomial in N of degree at most 2 (Ehrhart), so for lengths that are a multiple
of its period three values determine it; more values check it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import islpy as isl
import numpy as np

from patternc.analysis.loops import Loop, NoLoop, disjoint, row_loops
from patternc.analysis.residual import residual_in
from patternc.analysis.sets import (
    NotAffine,
    SetBuilder,
    TooHard,
    bounded_context,
    parameter_names,
    tile_relation,
)
from patternc.ir.evaluate import Ints, Point, evaluate, evaluate_int
from patternc.ir.fold import head_classes
from patternc.ir.nodes import (
    Axis,
    Binary,
    BoolExpr,
    Compare,
    Const,
    Expr,
    IntOp,
    Param,
)
from patternc.ir.walk import axes_of, children, params_of, subexpressions

_MAX_PERIOD = 4096
_MAX_REACH = 1 << 20
_MAX_PAIRS = 1 << 31  # what is counted point by point when there is no closed form
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class PairCount:
    """Counts the visible pairs of a mask; made once, asked for many lengths.

    Pairs in tiles of `block` x `block` that are all visible are counted by tiles
    (`full`, loops over `kt` for each `qt`), the others one query at a time (`partial`,
    loops over `k` for each `q`). Both are None without a closed form.
    """

    mask: BoolExpr
    block: int
    full: tuple[Loop, ...] | None
    partial: tuple[Loop, ...] | None

    def at(self, head: int, length: int, params: Mapping[str, int]) -> int:
        """Visible pairs of one head with 0 <= q, k < length, exactly.

        Raises `TooHard` if they would have to be counted one by one and are too many.
        """
        if self.full is None or self.partial is None:
            return _count_points(self.mask, head, length, params)
        queries = np.arange(length, dtype=np.int64)
        tiles = np.arange(-(-length // self.block), dtype=np.int64)
        heights = np.minimum(length - tiles * self.block, self.block)
        axes = {Axis.HEAD: head, Axis.LENGTH: length}
        at_tile = Point({**axes, Axis.QUERY_TILE: tiles}, params)
        at_query = Point({**axes, Axis.QUERY: queries}, params)
        total = sum(
            int((_keys_in_tiles(loop, at_tile, length, self.block) * heights).sum())
            for loop in self.full
        )
        return total + sum(
            int(visits(loop, at_query, length).sum()) for loop in self.partial
        )


@dataclass(frozen=True, slots=True)
class CountFormula:
    """`square * N^2 + linear * N + constant` pairs, for `N >= start`, N % period == 0."""

    square: Fraction
    linear: Fraction
    constant: Fraction
    period: int
    start: int

    def at(self, length: int) -> Fraction:
        """The value at a length that the formula covers."""
        return (self.square * length + self.linear) * length + self.constant


def pair_count(mask: BoolExpr, heads: int) -> PairCount:
    """Prepare to count the pairs of a mask of an attention with `heads` heads."""
    names = parameter_names(axes_of(mask), tuple(params_of(mask)))
    block = min(math.lcm(1, *_divisors(mask)), _MAX_PERIOD)
    try:
        with bounded_context() as context:
            points = SetBuilder(context, ("q", "k"), names)
            domain = points.where("k >= 0 and q >= 0").intersect(points.known(heads))
            visible = points.set_of(mask).intersect(domain)
            to_tiles = points.tile_map(block, block)
            tiles = tile_relation(visible, domain, to_tiles)
            known = SetBuilder(context, (), names).known(heads).params()
            full = _loops(tiles.full, Axis.QUERY_TILE, known)
            partial: tuple[Loop, ...] = ()
            for piece in disjoint(tiles.partial):
                inside = domain.intersect(piece.apply(to_tiles.reverse()))
                seen = points.set_of(residual_in(mask, inside, points))
                partial += _loops(seen.intersect(inside), Axis.QUERY, known)
    except (NotAffine, TooHard, NoLoop):
        return PairCount(mask, block, None, None)
    return PairCount(mask, block, full, partial)


def _loops(points: isl.Set, row: Axis, known: isl.Set) -> tuple[Loop, ...]:
    pieces = disjoint(points)
    return tuple(loop for piece in pieces for loop in row_loops(piece, row, known))


def visits(loop: Loop, at: Point, end: int) -> Ints:
    """How many points a loop visits below `end`, for each row of `at`."""
    lo, hi = evaluate_int(loop.lo, at), np.minimum(evaluate_int(loop.hi, at), end)
    counts = np.maximum(0, -((lo - hi) // loop.step))
    counts = np.where(evaluate(loop.guard, at), counts, 0)
    return np.broadcast_to(counts, _rows(at).shape)


def _keys_in_tiles(loop: Loop, at: Point, length: int, block: int) -> Ints:
    """Keys below `length` in the tiles that a loop visits; the last may be ragged."""
    n_tiles = -(-length // block)
    counts = visits(loop, at, n_tiles)
    ragged = n_tiles * block - length
    first = np.broadcast_to(evaluate_int(loop.lo, at), counts.shape)
    meets_last = (counts > 0) & (first + (counts - 1) * loop.step == n_tiles - 1)
    return np.asarray(counts * block - np.where(meets_last, ragged, 0))


def _rows(at: Point) -> Ints:
    """The rows, queries or query tiles, of a point."""
    axis = Axis.QUERY if Axis.QUERY in at.axes else Axis.QUERY_TILE
    return np.asarray(at.axes[axis], dtype=np.int64)


def count_formula(
    counter: PairCount, heads: tuple[int, ...], params: Mapping[str, int]
) -> CountFormula | None:
    """The total over `heads` as a formula in N, or None if none is known to hold."""
    period, reach = _period(counter.mask), _reach(counter.mask, params)
    if counter.full is None or period > _MAX_PERIOD or reach > _MAX_REACH:
        return None
    first = reach // period + 1

    classes = head_classes(counter.mask, heads)

    def total(multiple: int) -> int:
        length = multiple * period
        return sum(len(same) * counter.at(same[0], length, params) for same in classes)

    formula = _interpolate(first, period, total)

    def holds(multiple: int) -> bool:
        return formula.at(multiple * period) == total(multiple)

    if not all(holds(at) for at in (first + 3, first + 5, 2 * first + 1)):
        return None
    low, start = 0, first  # the formula holds at `start`, not below `low` + 1
    while start - low > 1:
        middle = (low + start) // 2
        low, start = (low, middle) if holds(middle) else (middle, start)
    return replace(formula, start=start * period)


def _interpolate(first: int, period: int, total: Callable[[int], int]) -> CountFormula:
    """The parabola through three consecutive multiples of the period."""
    a, b, c = (Fraction(total(first + step)) for step in range(3))
    square = (c - 2 * b + a) / 2  # in units of the period
    linear = b - a - square * (2 * first + 1)
    constant = a - square * first**2 - linear * first
    start = first * period
    return CountFormula(square / period**2, linear / period, constant, period, start)


def _period(expr: Expr) -> int:
    """A multiple of every period in N of what `expr` counts.

    A division by d repeats after d times the period of what it divides; slopes put
    vertices at fractions, so factors count too.
    """
    inner = math.lcm(*(_period(child) for child in children(expr)))
    match expr:
        case Binary(op=IntOp.FLOORDIV | IntOp.MOD, rhs=Const(value=c)):
            return inner * abs(c)
        case Binary(op=IntOp.MUL, lhs=Const(value=c)):
            return inner * max(1, abs(c))
        case Binary(op=IntOp.MUL, rhs=Const(value=c)):
            return inner * max(1, abs(c))
        case _:
            return inner


def _reach(mask: BoolExpr, params: Mapping[str, int]) -> int:
    """A length beyond which no constant of the mask meets the boundary any more."""
    total = 1
    for node in subexpressions(mask):
        if isinstance(node, Compare):
            parts = list(subexpressions(node))
            numbers = [part.value for part in parts if isinstance(part, Const)]
            numbers += [params[part.name] for part in parts if isinstance(part, Param)]
            scale = math.prod(_divisors(node))
            total += 2 * scale * (sum(abs(number) for number in numbers) + 1)
    return total


def _divisors(expr: Expr) -> set[int]:
    """The constants that something in `expr` is divided by."""
    return {
        abs(node.rhs.value)
        for node in subexpressions(expr)
        if isinstance(node, Binary)
        and node.op is IntOp.FLOORDIV
        and isinstance(node.rhs, Const)
    }


def _count_points(
    mask: BoolExpr, head: int, length: int, params: Mapping[str, int]
) -> int:
    """Count one by one, a bounded number of pairs at a time."""
    if length * length > _MAX_PAIRS:
        raise TooHard(f"{length} x {length} pairs are too many to count one by one")
    total, rows = 0, max(1, _CHUNK // max(1, length))
    keys = np.arange(length, dtype=np.int64)
    for start in range(0, length, rows):
        queries = np.arange(start, min(start + rows, length), dtype=np.int64)[:, None]
        axes: dict[Axis, int | Ints] = {Axis.QUERY: queries, Axis.KEY: keys}
        axes |= {Axis.HEAD: head, Axis.LENGTH: length}
        seen = evaluate(mask, Point(axes, params))
        total += int(np.broadcast_to(seen, (queries.size, length)).sum())
    return total
