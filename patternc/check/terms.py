"""IR expressions on their way up, with their sizes and bounds.

In: IR nodes whose parts have been measured. Out: `Number` and `Truths`: the node, how
many nodes and levels it has, and for integers the least and the greatest value. Not its
job: deciding what is too large (`check.expand`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from patternc.analysis.interval import Bounds, Box, bounds_of
from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Expr,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)
from patternc.source import Span


@dataclass(frozen=True, slots=True)
class Number:
    """An integer expression, `lo <= value <= hi`; exact Python integers.

    `guards` are what must hold for its reads and coordinates to mean something: they
    join the comparison that the number ends up in. `size` counts them.
    """

    expr: IntExpr
    lo: int
    hi: int
    size: int = 1
    depth: int = 1
    guards: tuple[Truths, ...] = ()

    def contains(self, value: int) -> bool:
        """Whether the bounds allow `value`."""
        return self.lo <= value <= self.hi


@dataclass(frozen=True, slots=True)
class Truths:
    """A truth-valued expression."""

    expr: BoolExpr
    size: int = 1
    depth: int = 1


def constant(value: int, span: Span) -> Number:
    """An integer that is known."""
    return Number(Const(value, span), value, value)


def index(axis: Axis, lo: int, hi: int, span: Span) -> Number:
    """The value of an axis."""
    return Number(Index(axis, span), lo, hi)


def parameter(name: str, lo: int, hi: int, span: Span) -> Number:
    """The value of a run-time parameter."""
    return Number(Param(name, span), lo, hi)


def binary(op: IntOp, lhs: Number, rhs: Number, span: Span) -> Number:
    """`lhs op rhs`; a divisor's bounds must not contain 0."""
    lo, hi = _bounds(Binary(op, Param("lhs"), Param("rhs")), lhs=lhs, rhs=rhs)
    size, depth = _measure((lhs, rhs))
    expr = Binary(op, lhs.expr, rhs.expr, span)
    return Number(expr, lo, hi, size, depth, guards_of(lhs, rhs))


def absolute(operand: Number, span: Span) -> Number:
    """`abs(operand)`."""
    lo, hi = _bounds(Abs(Param("operand")), operand=operand)
    size, depth = _measure((operand,))
    return Number(Abs(operand.expr, span), lo, hi, size, depth, operand.guards)


def read(table: str, indices: Sequence[Number], lo: int, hi: int, span: Span) -> Number:
    """An element of an integer or truth-value input, `lo <= value <= hi`."""
    expr = Read(table, tuple(index.expr for index in indices), span)
    size, depth = _measure(indices)
    return Number(expr, lo, hi, size, depth, guards_of(*indices))


def guarded(number: Number, guards: Sequence[Truths]) -> Number:
    """The number with further conditions for it to mean something."""
    found = tuple(dict.fromkeys((*number.guards, *guards)))
    size = number.size + sum(guard.size for guard in found[len(number.guards) :])
    return replace(number, guards=found, size=size)


def guards_of(*parts: Number) -> tuple[Truths, ...]:
    """The guards of all parts, each once."""
    return tuple(dict.fromkeys(guard for part in parts for guard in part.guards))


def compare(op: CompareOp, lhs: Number, rhs: Number, span: Span) -> Truths:
    """`lhs op rhs` with the guards of both sides: false where one of them is."""
    plain = Truths(Compare(op, lhs.expr, rhs.expr, span), *_measure((lhs, rhs)))
    return all_of((*guards_of(lhs, rhs), plain), span)


def all_of(terms: Sequence[Truths], span: Span) -> Truths:
    """True where every term is; one term is itself."""
    if len(terms) == 1:
        return terms[0]
    expr = All(tuple(term.expr for term in terms), span)
    return Truths(expr, *_measure(terms))


def any_of(terms: Sequence[Truths], span: Span) -> Truths:
    """True where some term is; one term is itself."""
    if len(terms) == 1:
        return terms[0]
    expr = Any(tuple(term.expr for term in terms), span)
    return Truths(expr, *_measure(terms))


def truth(value: bool, span: Span) -> Truths:
    """`full` or `empty`."""
    return Truths(Truth(value, span))


def complement(term: Truths, span: Span) -> Truths:
    """True where `term` is not."""
    return Truths(Not(term.expr, span), term.size + 1, term.depth + 1)


def _measure(parts: Sequence[Number | Truths]) -> tuple[int, int]:
    """The size and the depth of a node over `parts`."""
    deepest = max((part.depth for part in parts), default=0)
    return 1 + sum(part.size for part in parts), 1 + deepest


def _exact(lo: int, hi: int) -> Bounds:
    """Bounds of one element that hold Python integers.

    With no dimension at all NumPy would turn results into numbers of 64 bits.
    """
    return Bounds(np.asarray([lo], dtype=object), np.asarray([hi], dtype=object))


_NO_AXES = {Axis.QUERY: _exact(0, 0)}  # says that bounds are Python integers


def _bounds(shape: IntExpr, **parts: Number) -> tuple[int, int]:
    """Bounds of one operation whose operands' bounds are known.

    The operands stand as parameters, so that their own trees are not walked again.
    """
    known = {name: _exact(part.lo, part.hi) for name, part in parts.items()}
    found = bounds_of(shape, Box(_NO_AXES, known))
    return int(found.lo[0]), int(found.hi[0])


def varying_name(expr: Expr) -> str | None:
    """The name of an index, run-time parameter or input; None for other nodes."""
    match expr:
        case Index():
            return expr.axis.value
        case Param():
            return expr.name
        case Read():
            return expr.table
        case _:
            return None
