"""What a mask asks of the queries alone and of the keys alone.

In: a mask. Out: the same mask with the parts of each side gathered, and those parts:
the maximal subexpressions that read only `q`, or only `k`, beside the head, the length,
parameters and inputs. Not its job: their values (`plan.profile`).

`q.y * 32 + q.x - k.y * 32 - k.x` becomes `(q.y * 32 + q.x) - (k.y * 32 + k.x)`, and
`q - k < width[q]` becomes `q - width[q] < k`: a whole side is known more tightly than
the sum of its parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from patternc.analysis.interval import Box, bounds_of
from patternc.ir.fold import fold_int
from patternc.ir.nodes import (
    Axis,
    Binary,
    BoolExpr,
    Compare,
    Const,
    Expr,
    IntExpr,
    IntOp,
)
from patternc.ir.walk import axes_of, children, rewrite_bool

_SAFE = 2**62  # sums below it can be gathered in any way without an overflow


@dataclass(frozen=True, slots=True)
class Sides:
    """A mask and its maximal one-sided parts, integers and truth values.

    `by_step` says whether steps matter: whether some `//` or `%` mixes both sides.
    """

    mask: BoolExpr
    query: tuple[Expr, ...]
    key: tuple[Expr, ...]
    by_step: bool


def sides_of(mask: BoolExpr, box: Box) -> Sides:
    """Gather the sides of a mask. `box` bounds every value, in Python integers."""

    def rule(node: Expr) -> Expr:
        if isinstance(node, Binary) and node.op in (IntOp.ADD, IntOp.SUB):
            gathered = _gathered(node)
            if gathered is not node and _is_safe((gathered,), box):
                return gathered
        if isinstance(node, Compare):
            lhs, rhs = _apart(node)
            if lhs is not node.lhs and _is_safe((lhs, rhs), box):
                return replace(node, lhs=lhs, rhs=rhs)
        return node

    gathered = rewrite_bool(mask, rule)
    parts: dict[Axis, dict[Expr, None]] = {Axis.QUERY: {}, Axis.KEY: {}}
    by_step = False
    pending: list[Expr] = [gathered]
    while pending:
        node = pending.pop()
        side = axes_of(node) & {Axis.QUERY, Axis.KEY}
        if len(side) == 1:
            parts[next(iter(side))][node] = None
        elif side:
            divides = isinstance(node, Binary) and node.op in _DIVISIONS
            by_step = by_step or divides
            pending += reversed(children(node))
    return Sides(gathered, tuple(parts[Axis.QUERY]), tuple(parts[Axis.KEY]), by_step)


_DIVISIONS = (IntOp.FLOORDIV, IntOp.MOD)


def _terms(expr: IntExpr, sign: int = 1) -> list[tuple[IntExpr, int]]:
    """A sum as its terms with their signs."""
    match expr:
        case Binary(op=IntOp.ADD, lhs=lhs, rhs=rhs):
            return _terms(lhs, sign) + _terms(rhs, sign)
        case Binary(op=IntOp.SUB, lhs=lhs, rhs=rhs):
            return _terms(lhs, sign) + _terms(rhs, -sign)
        case _:
            return [(expr, sign)]


def _sum(terms: list[tuple[IntExpr, int]]) -> IntExpr:
    total: IntExpr = Const(0)
    for term, sign in sorted(terms, key=lambda item: -item[1]):  # + first
        op = IntOp.ADD if sign > 0 else IntOp.SUB
        total = Binary(op, total, term)
    return fold_int(total)


def _sorted_by_side(
    terms: list[tuple[IntExpr, int]],
) -> dict[frozenset[Axis], list[tuple[IntExpr, int]]]:
    found: dict[frozenset[Axis], list[tuple[IntExpr, int]]] = {}
    for term, sign in terms:
        side = axes_of(term) & {Axis.QUERY, Axis.KEY}
        found.setdefault(side, []).append((term, sign))
    return found


def _gathered(expr: Binary) -> IntExpr:
    """The same sum, with the terms of each side together."""
    by_side = _sorted_by_side(_terms(expr))
    if len(by_side) < 2:
        return expr
    total: IntExpr | None = None
    for terms in by_side.values():
        if total is None:
            total = _sum(terms)
        elif all(sign < 0 for _, sign in terms):
            flipped = [(term, -sign) for term, sign in terms]
            total = Binary(IntOp.SUB, total, _sum(flipped))
        else:
            total = Binary(IntOp.ADD, total, _sum(terms))
    return cast(IntExpr, total)


def _apart(expr: Compare) -> tuple[IntExpr, IntExpr]:
    """Both sides of a comparison, the queries on the left if that parts them whole."""
    terms = _terms(expr.lhs) + _terms(expr.rhs, -1)
    by_side = _sorted_by_side(terms)
    queries = by_side.pop(frozenset({Axis.QUERY}), None)
    keys = by_side.pop(frozenset({Axis.KEY}), None)
    neither = by_side.pop(frozenset(), [])
    if queries is None or keys is None or by_side:
        return expr.lhs, expr.rhs
    return _sum(queries + neither), _sum([(term, -sign) for term, sign in keys])


def _is_safe(exprs: tuple[IntExpr, ...], box: Box) -> bool:
    """Whether nothing in the expressions can leave 64 bits."""
    for expr in exprs:
        found = bounds_of(expr, box)
        if not -_SAFE < int(np.min(found.lo)) <= int(np.max(found.hi)) < _SAFE:
            return False
    return True
