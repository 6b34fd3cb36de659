"""The rows of a map that can be live, from sizes alone.

In: a map, the values of its first key, parameters. Out: the first and the last row that
its conditions allow; so an estimate from the last 64 queries costs 64 rows. Not its
job: conditions that read inputs, or other keys: they are looked at where they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from patternc.backends.key_ranges import KeyRange
from patternc.ir.evaluate import Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    QUERY,
    All,
    Axis,
    BoolExpr,
    Compare,
    CompareOp,
    IntExpr,
)
from patternc.ir.selection import (
    MapBinary,
    MapCall,
    MapExpr,
    MapWhere,
    Norm,
    Softmax,
    key_axis,
    keys_of,
)
from patternc.ir.walk import axes_of, tables_of

_FIRST = key_axis(0)


def live_rows(
    map_: MapExpr, first: KeyRange, n_k: int, params: Mapping[str, int]
) -> tuple[int, int]:
    """The rows of a map, by index, outside of which nothing is live."""
    start, stop = 0, first.size
    for condition in _terms(map_):
        own = _rows_of(condition, first, n_k, params)
        start, stop = max(start, own[0]), min(stop, own[1])
    return start, max(start, stop)


def _terms(map_: MapExpr) -> Iterator[BoolExpr]:
    """The conditions on the first key alone that all entries of a map pass."""
    match map_:
        case MapWhere():
            yield from (term for term in flat(map_.condition) if _is_on_rows(term))
            yield from _terms(map_.operand)
        case MapCall() | Softmax() | Norm():
            yield from _terms(map_.operand)
        case MapBinary():
            for side in (map_.lhs, map_.rhs):
                if keys_of(side):
                    yield from _terms(side)
        case _:
            return


def flat(condition: BoolExpr) -> Iterator[BoolExpr]:
    """The terms of a condition that all hold."""
    if isinstance(condition, All):
        for term in condition.terms:
            yield from flat(term)
    else:
        yield condition


def _is_on_rows(term: BoolExpr) -> bool:
    return axes_of(term) <= {Axis.FIRST, Axis.LENGTH} and not tables_of(term)


def _rows_of(
    term: BoolExpr, first: KeyRange, n_k: int, params: Mapping[str, int]
) -> tuple[int, int]:
    bound = _bound_of(term)
    if bound is not None:  # the usual probe; at millions of rows the rest takes long
        least = int(evaluate_int(bound, Point({Axis.LENGTH: n_k}, params)))
        return min(max(least - first.first, 0), first.size), first.size
    rows = np.arange(first.size, dtype=np.int64) + first.first
    at = Point({Axis.FIRST: rows, Axis.LENGTH: n_k}, params)
    held = np.flatnonzero(np.broadcast_to(evaluate(term, at), rows.shape))
    return (int(held[0]), int(held[-1]) + 1) if held.size else (0, 0)


def _bound_of(term: BoolExpr) -> IntExpr | None:
    """`e` of `first key >= e`, where `e` is one number for all rows."""
    match term:
        case Compare(op=CompareOp.GE, lhs=lhs, rhs=rhs) if lhs == _FIRST:
            return rhs if axes_of(rhs) <= {Axis.LENGTH} else None
    return None


def probe_bounds(map_: MapExpr) -> Iterator[tuple[MapWhere, IntExpr]]:
    """The probes `q >= e` among the conditions of a map: where, and `e`."""
    if isinstance(map_, MapWhere) and keys_of(map_)[:1] == (QUERY,):
        for term in flat(map_.condition):
            bound = _bound_of(term) if _is_on_rows(term) else None
            if bound is not None:
                yield map_, bound
