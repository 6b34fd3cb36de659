"""Expressions over tokens, in terms of the keys of a map.

In: an IR expression over `q` and `k`, and the keys of a map. Out: the same over the
map's own axes, or None if the keys do not tell it. Not its job: which keys a map has
(`check.maps`).

`k // 256` is known from the key `k // 128`, as `FIRST // 2`; `q - k` is known from the
keys `q` and `k`; `q` is not known from `q // 128`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar, assert_never, cast

from patternc.check.reads import position_of
from patternc.ir.floats import float_subexpressions
from patternc.ir.fold import fold_bool, fold_int
from patternc.ir.nodes import (
    Axis,
    Binary,
    BoolExpr,
    Const,
    Expr,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatRead,
    FloatSelect,
    FromInt,
    GivenValue,
    Index,
    IntExpr,
    IntOp,
)
from patternc.ir.selection import (
    key_axis,
)
from patternc.ir.walk import axes_of, children, rewrite_down

Keys = tuple[IntExpr, ...]
TOKENS = frozenset({Axis.QUERY, Axis.KEY})

E = TypeVar("E", bound=Expr)


def number_through(expr: IntExpr, keys: Keys) -> IntExpr | None:
    """An integer over the axes of a map with these keys; None if they do not tell it."""
    return _through(fold_int(expr), keys)


def truths_through(expr: BoolExpr, keys: Keys) -> BoolExpr | None:
    """A condition over the axes of a map with these keys, or None."""
    return _through(fold_bool(expr), keys)


def float_through(expr: FloatExpr, keys: Keys) -> FloatExpr | None:
    """A floating number over the axes of a map with these keys, or None."""
    match expr:
        case FloatConst() | GivenValue():
            return expr
        case FromInt():
            operand = number_through(expr.operand, keys)
            return None if operand is None else FromInt(operand, expr.span)
        case FloatRead():
            indices = _all_through(expr.indices, keys)
            if indices is None:
                return None
            return FloatRead(expr.table, indices, expr.span)
        case FloatBinary():
            lhs, rhs = float_through(expr.lhs, keys), float_through(expr.rhs, keys)
            if lhs is None or rhs is None:
                return None
            return FloatBinary(expr.op, lhs, rhs, expr.span)
        case FloatCall():
            inner = float_through(expr.operand, keys)
            return inner and FloatCall(expr.function, inner, expr.span)
        case FloatSelect():
            condition = truths_through(expr.condition, keys)
            then = float_through(expr.then, keys)
            other = float_through(expr.otherwise, keys)
            if condition is None or then is None or other is None:
                return None
            return FloatSelect(condition, then, other, expr.span)


def _all_through(exprs: Sequence[IntExpr], keys: Keys) -> tuple[IntExpr, ...] | None:
    found = [number_through(expr, keys) for expr in exprs]
    known = tuple(expr for expr in found if expr is not None)
    return known if len(known) == len(found) else None


def own_keys(expr: FloatExpr) -> Keys:
    """The keys of a number by itself, in order: the indices of its reads over tokens,
    and positions such as `q` and `k // 64` in what else it reads.

    A key that others tell is left out.
    """
    found: list[IntExpr] = []
    for part in _key_parts(expr):
        if axes_of(part) & TOKENS and number_through(part, tuple(found)) is None:
            found.append(part)
    return tuple(found)


def _key_parts(expr: FloatExpr) -> Iterator[IntExpr]:
    for node in float_subexpressions(expr):
        match node:
            case FloatRead():
                yield from (fold_int(index) for index in node.indices)
            case FromInt():
                yield from _positions(fold_int(node.operand))
            case FloatSelect():
                pass  # what stands in its condition guards a read
            case FloatConst() | GivenValue() | FloatBinary() | FloatCall():
                pass
            case _:
                assert_never(node)


def _positions(expr: Expr) -> Iterator[IntExpr]:
    """The outermost parts that count positions of one side."""
    if isinstance(expr, IntExpr):
        at = position_of(expr)
        if at is not None and at.axis in TOKENS:
            yield expr
            return
    for child in children(expr):
        yield from _positions(child)


def _through(expr: E, keys: Keys) -> E | None:
    """Every part that a key tells is replaced, the outermost first."""
    result = cast(E, rewrite_down(expr, lambda node: _as_key(node, keys)))
    return None if axes_of(result) & TOKENS else result


def _as_key(node: Expr, keys: Keys) -> Expr | None:
    for place, key in enumerate(keys):
        if node == key:
            return key_axis(place)
    if not isinstance(node, Index | Binary):
        return None
    at = position_of(node)
    if at is None or at.axis not in TOKENS:
        return None
    for place, key in enumerate(keys):
        own = position_of(key)
        if own is None or own.axis is not at.axis or at.divisor % own.divisor:
            continue
        apart = at.shift - own.shift
        if apart % own.divisor:
            continue
        # (p - s - c * d) // (d * n) is ((p - s) // d - c) // n.
        shifted = _shifted(key_axis(place), -(apart // own.divisor))
        ratio = at.divisor // own.divisor
        return shifted if ratio == 1 else Binary(IntOp.FLOORDIV, shifted, Const(ratio))
    return None


def _shifted(expr: IntExpr, by: int) -> IntExpr:
    if by == 0:
        return expr
    op = IntOp.ADD if by > 0 else IntOp.SUB
    return Binary(op, expr, Const(abs(by)))
