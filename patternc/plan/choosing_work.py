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

import numpy as np

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
from patternc.plan.measured import Choosing
from patternc.plan.stripes import NoStripes, find_stripes

ASSUMED_SHARE = 0.25
"""Of its keys that a selection keeps whose number only data decides."""

COLUMNS, BY_COLUMNS = 128, 0.8
"""The columns that times are of, and the part of a pair's time that grows with them:
from the full tiles of 64 and 128 columns in `plan.measured`."""

TILE = 64
"""Keys and diagonals that lie apart fill tiles of this size."""

_ROWS, _KEYS, _SAMPLES = 48, 256, 4096
"""Where a mask is sampled."""


@dataclass(frozen=True, slots=True)
class Work:
    """What choosing has to do, counted over all heads of one batch element.

    Entries of estimates, those that are ranked in many scopes and those in one for each
    head; visible pairs among chosen diagonals and columns, and among chosen blocks;
    pairs of tiles that are visited for single pairs in them, where tiles are listed, and
    as many as lines would need if they lie apart; visible pairs of the dense masks.
    """

    scored: float
    ranked: float
    alone: float
    lines: float
    blocks: float
    tiles: float
    apart: float
    dense: float

    def milliseconds(
        self, times: Choosing, is_short: bool, head_dim: int = COLUMNS
    ) -> tuple[float, float, float]:
        """The plan, attention, and a dense call, of rows of `head_dim` numbers."""
        width = 1.0 + BY_COLUMNS * (head_dim / COLUMNS - 1.0)
        planned = width * times.scored_ps * self.scored
        planned += times.ranked_ps * self.ranked + times.alone_ps * self.alone
        lines = times.line_ps * self.lines
        if is_short:
            lines = max(lines, times.tile_ps * self.apart)
        attended = lines + times.block_ps * self.blocks + times.tile_ps * self.tiles
        return (
            times.launches_ms + 1e-9 * planned,
            1e-9 * width * attended,
            1e-9 * width * times.dense_ps * self.dense,
        )


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
            one.table: 1.0 - (1.0 - chosen[one.table]) ** TILE
            if call.is_by_token(one)
            else chosen[one.table]
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
        found = dict.fromkeys(("lines", "blocks", "tiles", "apart"), 0.0)
        for case, seen, apart in zip(
            self.attention.cases, self.seen, self.apart, strict=True
        ):
            kind = _kind(case.mask)
            own = apart if kind == "tiles" else seen
            found[kind] += len(case.heads) * pairs * own
            if kind == "lines":
                found["apart"] += len(case.heads) * pairs * apart
        estimate = _estimate(self.attention, self.call)
        dense = pairs * self.attention.heads * self.dense
        return Work(**estimate, dense=dense, **found)


def _kind(mask: BoolExpr) -> str:
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

    def number(self, amount: MapExpr, otherwise: float) -> float:
        """A number of the program, of the first head; `otherwise` if data decides."""
        match amount:
            case MapNumber(value=value):
                return value
            case MapValue(value=FromInt(operand=operand)) if not tables_of(operand):
                axes: dict[Axis, int | Ints] = {Axis.LENGTH: self.n_k, Axis.HEAD: 0}
                return float(evaluate_int(operand, Point(axes, self.params)))
        return otherwise

    def is_by_token(self, selection: Selection) -> bool:
        """Whether keys stand for single tokens, and not for blocks of them."""
        return any(self.size(key) >= self.n_k for key in selection.keys)

    def density(self, mask: BoolExpr, head: int, shares: Mapping[str, float]) -> float:
        """The share of visible pairs, at some of them, with keys chosen by chance."""
        if not self.n_q or not self.n_k:
            return 0.0
        rng = np.random.default_rng(0)
        rows = np.linspace(0, self.n_q - 1, min(_ROWS, self.n_q)).astype(np.int64)
        keys = np.linspace(0, self.n_k - 1, min(_KEYS, self.n_k)).astype(np.int64)
        axes: dict[Axis, int | Ints] = {
            Axis.QUERY: rows[:, None] + self.q_offset,
            Axis.KEY: keys[None, :],
            Axis.HEAD: head,
            Axis.LENGTH: self.n_k,
        }
        shape = (len(rows), len(keys))
        by_chance = {
            table: rng.random(shape) < share for table, share in sorted(shares.items())
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
    # No more are there than keys: of the diagonals q - k half lie in the future.
    scope = prod(
        min(max(call.size(key), 1), max(call.n_k, 1))
        for place, key in enumerate(selection.keys)
        if place not in selection.per
    )
    share = ASSUMED_SHARE
    if selection.choice is Choice.TOP:
        share = call.number(selection.amount, ASSUMED_SHARE * scope) / scope
    if selection.least is not None:
        share = max(share, call.number(selection.least, 0.0) / scope)
    if selection.most is not None:
        share = min(share, call.number(selection.most, scope) / scope)
    return min(share, 1.0)


def _estimate(attention: Attention, call: CallSizes) -> dict[str, float]:
    """Entries that are computed, and those that are ranked, of all heads."""
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
    return {name: count * attention.heads for name, count in found.items()}


def _live_pairs(map_: MapWhere, call: CallSizes) -> float:
    """Of all pairs those for which a condition holds: a probe's rows, or a sample."""
    pairs = float(call.n_q) * call.n_k
    if (rows := _rows(map_, call)) < call.n_q:
        return rows * call.n_k
    known = {Axis.FIRST, Axis.SECOND, Axis.HEAD, Axis.LENGTH}
    if not pairs or not axes_of(map_.condition) <= known:
        return pairs
    rng = np.random.default_rng(0)
    point: dict[Axis, int | Ints] = {
        Axis.FIRST: rng.integers(0, call.n_q, _SAMPLES) + call.q_offset,
        Axis.SECOND: rng.integers(0, call.n_k, _SAMPLES),
        Axis.HEAD: 0,
        Axis.LENGTH: call.n_k,
    }
    at = Point(point, _Known(call.params))
    return pairs * float(_sampled(map_.condition, at, {}, (_SAMPLES,)).mean())


def _rows(map_: MapWhere, call: CallSizes) -> float:
    """The rows that a probe `q >= N - 64` has."""
    condition = map_.condition
    if not isinstance(condition, Compare) or axes_of(condition.rhs) - {Axis.LENGTH}:
        return float(call.n_q)
    if axes_of(condition.lhs) != {Axis.FIRST} or tables_of(condition):
        return float(call.n_q)
    least = int(
        evaluate_int(condition.rhs, Point({Axis.LENGTH: call.n_k}, call.params))
    )
    return float(min(max(call.q_offset + call.n_q - least, 1), call.n_q))


def work_of(attention: Attention, n: int, density: float | None = None) -> Work:
    """What a call of `n` queries and keys has to do.

    `density` is the share of visible pairs of chosen ones, where it was measured.
    """
    found = Shares.of(attention, CallSizes(n, n, 0, {}))
    if density is not None:
        scale = density / max(found.mean(found.seen), 1e-12)
        found = replace(found, seen=tuple(scale * share for share in found.seen))
    return found.work()
