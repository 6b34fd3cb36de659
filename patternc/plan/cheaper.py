"""When a mask that selects is worth its estimate.

In: an attention that may be dense instead, and the sizes of a call. Out: what either
way costs, in pairs, from sizes alone: nothing is asked of the data. Not its job: what is
chosen, measured times (`plan.measured`).

The unit is one visible pair of one head in a dense kernel. What data decides is assumed:
`top_p` and `above` keep ASSUMED_SHARE of their keys, a test holds for half of the heads,
and chosen keys lie in clusters. Scattered diagonals fill more tiles than that: see
`Costs.scattered`.
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

ASSUMED_SHARE = 0.25
"""Of its keys that a selection keeps whose number only data decides."""

CHOSEN_PAIR = 1.6
"""What a visible pair costs among chosen ones: tiles are partly empty, keys gathered."""

ESTIMATED_PAIR = 0.5
"""What an entry of an estimate costs: one product, and no values."""

RANKED_ENTRY = 4.0
"""What an entry costs that is ranked: it is read and written several times."""

FIXED = 2.8e9
"""What planning costs whatever the sizes: 2.4 ms of launches on an H200, measured for
vertical-slash and `top_p` at 4K to 32K tokens, where its dense kernels take 1.15e9 pairs
in a millisecond."""

TILE = 64
"""Keys and diagonals that lie apart fill tiles of this size."""

_ROWS, _KEYS = 48, 256
"""Where a mask is sampled."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Pairs of all heads of one batch element.

    `density` and `dense_density` are the shares of visible pairs, `scattered` the share
    of 64 x 64 tiles that chosen keys reach if they lie apart.
    """

    estimate: float
    chosen: float
    dense: float
    density: float
    dense_density: float
    scattered: float

    @property
    def is_dense_cheaper(self) -> bool:
        """Whether choosing does not pay."""
        return self.estimate + self.chosen >= self.dense


def costs(
    attention: Attention,
    n_q: int,
    n_k: int,
    q_offset: int,
    params: tuple[tuple[str, int], ...],
) -> Costs:
    """What choosing and attending costs, and what the dense masks cost."""
    given = dict(params)
    call = _Call(n_q, n_k, q_offset, given)
    shares = {one.table: _share(one, call) for one in attention.selections}
    pairs = float(n_q) * n_k
    densities = [
        (len(case.heads), call.density(case.mask, case.heads[0], shares))
        for case in attention.cases
    ]
    dense = [
        (len(case.heads), call.density(case.mask, case.heads[0], {}))
        for case in attention.dense_cases or attention.cases
    ]
    tiles = {
        one.table: 1.0 - (1.0 - shares[one.table]) ** TILE
        if call.is_by_token(one)
        else shares[one.table]
        for one in attention.selections
    }
    scattered = [
        (len(case.heads), call.density(case.mask, case.heads[0], tiles))
        for case in attention.cases
    ]
    chosen = sum(heads * share for heads, share in densities) * pairs * CHOSEN_PAIR
    whole = sum(heads * share for heads, share in dense) * pairs
    heads = attention.heads
    return Costs(
        _estimate(attention, call),
        chosen,
        whole,
        sum(count * share for count, share in densities) / heads,
        sum(count * share for count, share in dense) / heads,
        sum(count * share for count, share in scattered) / heads,
    )


@dataclass(frozen=True)
class _Call:
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
    mask: BoolExpr, at: Point, chosen: Mapping[str, Bools], shape: tuple[int, int]
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


def _share(selection: Selection, call: _Call) -> float:
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


def _estimate(attention: Attention, call: _Call) -> float:
    """Entries that are computed, and those that are ranked, of all heads."""
    seen: set[object] = set()
    total = FIXED
    for selection in attention.selections:
        ranked = prod(call.size(key) for key in selection.keys)
        total += RANKED_ENTRY * ranked * attention.heads
        for whole in maps_of(selection):
            rows = float(call.n_q)
            for node in submaps(whole):
                if isinstance(node, MapWhere) and keys_of(node):
                    rows = min(rows, _rows(node, call))
                if isinstance(node, Logits) and (rows, node) not in seen:
                    seen.add((rows, node))
                    total += ESTIMATED_PAIR * rows * call.n_k * attention.heads
                if isinstance(node, Product) and node not in seen:
                    seen.add(node)
                    entries = prod(call.size(key) for key in keys_of(node))
                    total += ESTIMATED_PAIR * entries * attention.heads
    return total


def _rows(map_: MapWhere, call: _Call) -> float:
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
