"""What choosing keys has to do, counted from the sizes of a call.

In: an attention that selects, and sizes. Out: `Work`: entries that are estimated and
ranked, pairs that are visited; the shares of pairs that are visible. Not its job: times
(`plan.measured`), whether it pays (`plan.cheaper`).

Nothing is asked of the data. What only they decide is assumed: `top_p` and `above` keep
ASSUMED_SHARE of their keys, a test holds for half of the heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from patternc.analysis.interval import Box, bounds_of, python_bounds
from patternc.ir.evaluate import Bools, Ints, Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    All,
    Any,
    Attention,
    Axis,
    BoolExpr,
    Compare,
    FromInt,
    IntExpr,
    Not,
    Read,
    Truth,
)
from patternc.ir.selected import maps_of, submaps
from patternc.ir.selection import (
    Choice,
    Logits,
    MapExpr,
    MapNumber,
    MapValue,
    MapWhere,
    Product,
    Selection,
    keys_of,
)
from patternc.ir.walk import axes_of, tables_of
from patternc.plan.kernel import Schedule
from patternc.plan.prices import (
    KEYS,
    ROWS,
    SAMPLES,
    CaseShare,
    Work,
    chosen_share,
    counted,
    reached_share,
    scope_of,
)
from patternc.plan.stripes import NoStripes, find_stripes

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """For each case the share of pairs that are visible, and of those in tiles which
    chosen keys reach if they lie apart; the mean share of pairs that dense masks have.
    """

    attention: Attention
    call: CallSizes
    seen: tuple[float, ...]
    apart: tuple[float, ...]
    dense: float

    @staticmethod
    def of(attention: Attention, call: CallSizes) -> Shares:
        """The shares of a call."""
        chosen = {one.table: _share(one, call) for one in attention.selections}
        tiles = {
            one.table: reached_share(chosen[one.table], call.is_by_token(one))
            for one in attention.selections
        }

        def shares(by: Mapping[str, float]) -> tuple[float, ...]:
            cases = attention.cases
            return tuple(call.density(c.mask, c.heads[0], by) for c in cases)

        dense = sum(
            len(case.heads) * call.density(case.mask, case.heads[0], {})
            for case in attention.dense_cases or attention.cases
        )
        every = dense / attention.heads
        return Shares(attention, call, shares(chosen), shares(tiles), every)

    def mean(self, shares: tuple[float, ...]) -> float:
        """Over all heads."""
        cases = self.attention.cases
        total = sum(len(c.heads) * x for c, x in zip(cases, shares, strict=True))
        return total / self.attention.heads

    def work(self) -> Work:
        """The pairs of each kind, and the entries of estimates."""
        pairs = float(self.call.n_q) * self.call.n_k
        shares = zip(self.attention.cases, self.seen, self.apart, strict=True)
        cases = [
            CaseShare(kind_of(case.mask), len(case.heads), seen, apart)
            for case, seen, apart in shares
        ]
        estimate = _estimate(self.attention, self.call)
        return counted(cases, self.attention.heads, pairs, self.dense, estimate)


def kind_of(mask: BoolExpr) -> str:
    """How a mask's chosen pairs are visited, by the kernels that are measured."""
    try:
        stripes = find_stripes(mask, Schedule())
    except NoStripes:
        return "tiles"
    lines = tables_of(stripes.diagonals) | tables_of(stripes.columns)
    return "lines" if lines or stripes.blocks is None else "blocks"


@dataclass(frozen=True)
class CallSizes:
    """The sizes of a call."""

    n_q: int
    n_k: int
    q_offset: int
    params: Mapping[str, int]

    def size(self, key: IntExpr) -> int:
        """How many values a key has."""
        last = self.q_offset + self.n_q - 1
        axes = {
            Axis.QUERY: python_bounds(self.q_offset, max(last, self.q_offset)),
            Axis.KEY: python_bounds(0, max(self.n_k - 1, 0)),
            Axis.LENGTH: python_bounds(self.n_k, self.n_k),
        }
        known = {name: python_bounds(x, x) for name, x in self.params.items()}
        labels = python_bounds(0, 2**20)
        found = bounds_of(key, Box(axes, known, lambda read, at: labels))
        return int(found.hi) - int(found.lo) + 1

    def number(self, amount: MapExpr | None) -> float | None:
        """A number of the program, of the first head; None if data decides."""
        found = None if amount is None else number_of(amount)
        if found is None or isinstance(found, float):
            return found
        axes: dict[Axis, int | Ints] = {Axis.LENGTH: self.n_k, Axis.HEAD: 0}
        return float(evaluate_int(found, Point(axes, self.params)))

    def is_by_token(self, selection: Selection) -> bool:
        """Whether keys stand for single tokens, and not for blocks of them."""
        return any(self.size(key) >= self.n_k for key in selection.keys)

    def density(self, mask: BoolExpr, head: int, shares: Mapping[str, float]) -> float:
        """The share of visible pairs, at some of them, with keys chosen by chance."""
        if not self.n_q or not self.n_k:
            return 0.0
        rows, keys = spread(self.n_q, ROWS), spread(self.n_k, KEYS)
        axes: dict[Axis, int | Ints] = {
            Axis.QUERY: rows[:, None] + self.q_offset,
            Axis.KEY: keys[None, :],
            Axis.HEAD: head,
            Axis.LENGTH: self.n_k,
        }
        shape = (len(rows), len(keys))
        by_chance = {
            table: draws(at, shape) < share
            for at, (table, share) in enumerate(sorted(shares.items()))
        }
        seen = _sampled(mask, Point(axes, self.params), by_chance, shape)
        return float(seen.mean())


def _sampled(
    mask: BoolExpr, at: Point, chosen: Mapping[str, Bools], shape: tuple[int, ...]
) -> Bools:
    """A mask at some pairs: what it reads of tables is drawn, of inputs it is true."""
    match mask:
        case All():
            seen = np.ones(shape, dtype=np.bool_)
            for term in mask.terms:
                seen = seen & _sampled(term, at, chosen, shape)
            return seen
        case Any():
            seen = np.zeros(shape, dtype=np.bool_)
            for term in mask.terms:
                seen = seen | _sampled(term, at, chosen, shape)
            return seen
        case Not():
            return ~_sampled(mask.term, at, chosen, shape)
        case Compare(lhs=Read(table=table)) if table in chosen:
            return chosen[table]
        case Compare() | Truth():
            if tables_of(mask):
                return np.ones(shape, dtype=np.bool_)
            known = replace(at, params=_Known(at.params))
            return np.broadcast_to(evaluate(mask, known), shape)


class _Known(dict[str, int]):
    """Parameters; those that a plan gives are 0: what they bound is sampled anyway."""

    def __missing__(self, name: str) -> int:
        return 0


def _share(selection: Selection, call: CallSizes) -> float:
    """Of the keys of a scope, how many are chosen; what data decides is assumed."""
    if not selection.keys:
        return 0.5
    sizes = [
        call.size(key)
        for place, key in enumerate(selection.keys)
        if place not in selection.per
    ]
    amount = selection.amount if selection.choice is Choice.TOP else None
    least, most = call.number(selection.least), call.number(selection.most)
    share = chosen_share(scope_of(sizes, call.n_k), call.number(amount), least, most)
    return share if selection.reach == 1 else 1.0 - (1.0 - share) ** selection.reach


def number_of(amount: MapExpr) -> float | IntExpr | None:
    """A number of the program, or what computes it; None if data decides."""
    match amount:
        case MapNumber(value=value):
            return float(value)
        case MapValue(value=FromInt(operand=operand)) if not tables_of(operand):
            return operand
    return None


def spread(size: int, most: int) -> Ints:
    """Some of the numbers below `size`, the first and the last among them."""
    count = min(most, size)
    numbers = np.arange(count, dtype=np.int64)
    return numbers * (size - 1) // max(count - 1, 1)


def draws(stream: int, shape: tuple[int, ...]) -> Floats:
    """Numbers in [0, 1) that look drawn, others for each stream; the same everywhere.

    Counters whose bits are mixed as MurmurHash3 ends (A. Appleby, 2011), 32 of them.
    """
    mask = (1 << 32) - 1
    x = np.arange(prod(shape), dtype=np.uint64) + np.uint64(stream << 24)
    x = x * np.uint64(0x9E3779B1) & np.uint64(mask)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ x >> np.uint64(shift)) * np.uint64(factor) & np.uint64(mask)
    x ^= x >> np.uint64(16)
    return (x.astype(np.float64) / 2.0**32).reshape(shape)


def _estimate(attention: Attention, call: CallSizes) -> tuple[float, float, float]:
    """Entries that are computed, those ranked in many scopes and in one, of all heads."""
    seen: set[object] = set()
    found = dict.fromkeys(("scored", "ranked", "alone"), 0.0)
    for selection in attention.selections:
        entries = float(prod(call.size(key) for key in selection.keys))
        found["ranked" if selection.per else "alone"] += entries
        for whole in maps_of(selection):
            pairs = float(call.n_q) * call.n_k
            for node in submaps(whole):
                if isinstance(node, MapWhere) and keys_of(node):
                    pairs = min(pairs, _live_pairs(node, call))
                if isinstance(node, Logits) and (pairs, node) not in seen:
                    seen.add((pairs, node))
                    found["scored"] += pairs
                if isinstance(node, Product) and node not in seen:
                    seen.add(node)
                    sizes = (call.size(key) for key in keys_of(node))
                    found["scored"] += float(prod(sizes))
    scored, ranked, alone = (count * attention.heads for count in found.values())
    return scored, ranked, alone


def _live_pairs(map_: MapWhere, call: CallSizes) -> float:
    """Of all pairs those for which a condition holds: a probe's rows, or a sample."""
    pairs = float(call.n_q) * call.n_k
    if (rows := _rows(map_, call)) < call.n_q:
        return rows * call.n_k
    if not pairs or not is_of_keys(map_.condition):
        return pairs
    first, second = (
        (draws(at, (SAMPLES,)) * size).astype(np.int64)
        for at, size in enumerate((call.n_q, call.n_k))
    )
    point: dict[Axis, int | Ints] = {
        Axis.FIRST: first + call.q_offset,
        Axis.SECOND: second,
        Axis.HEAD: 0,
        Axis.LENGTH: call.n_k,
    }
    at = Point(point, _Known(call.params))
    return pairs * float(_sampled(map_.condition, at, {}, (SAMPLES,)).mean())


def is_of_keys(condition: BoolExpr) -> bool:
    """Whether a condition is one that can be sampled: of keys, the head and the length."""
    return axes_of(condition) <= {Axis.FIRST, Axis.SECOND, Axis.HEAD, Axis.LENGTH}


def _rows(map_: MapWhere, call: CallSizes) -> float:
    """The rows that a probe `q >= N - 64` has."""
    found = first_row(map_.condition)
    if found is None:
        return float(call.n_q)
    least = int(evaluate_int(found, Point({Axis.LENGTH: call.n_k}, call.params)))
    return float(min(max(call.q_offset + call.n_q - least, 1), call.n_q))


def first_row(condition: BoolExpr) -> IntExpr | None:
    """What the rows of a condition begin at, if it says nothing else."""
    if not isinstance(condition, Compare) or axes_of(condition.rhs) - {Axis.LENGTH}:
        return None
    if axes_of(condition.lhs) != {Axis.FIRST} or tables_of(condition):
        return None
    return condition.rhs


def work_of(attention: Attention, n: int, density: float | None = None) -> Work:
    """What a call of `n` queries and keys has to do.

    `density` is the share of visible pairs of chosen ones, where it was measured.
    """
    found = Shares.of(attention, CallSizes(n, n, 0, {}))
    if density is not None:
        scale = density / max(found.mean(found.seen), 1e-12)
        found = replace(found, seen=tuple(scale * share for share in found.seen))
    return found.work()
