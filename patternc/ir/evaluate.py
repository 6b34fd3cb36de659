"""The meaning of an expression, in NumPy: the definition of the language.

In: an expression and, for every axis and run-time parameter that it reads, an
integer or an int64 array. Out: the value, by NumPy's broadcasting. Not its job:
speed. Every pass and every backend is tested against this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any as Anything
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

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
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Tables = Mapping[str, NDArray[Anything]]


@dataclass(frozen=True)
class Point:
    """Where an expression is looked at: a value for each axis, parameter and input.

    `tables` holds the inputs of one batch element, as int64 or bool arrays without a
    batch axis (a batch scalar is an array of no axes).
    """

    axes: Mapping[Axis, int | Ints]
    params: Mapping[str, int] = field(default_factory=dict)
    tables: Tables = field(default_factory=dict)


def evaluate_int(expr: IntExpr, at: Point) -> Ints:
    """The integer value of `expr`, int64. Raises `KeyError` for a missing axis."""
    match expr:
        case Const():
            return np.asarray(expr.value, dtype=np.int64)
        case Index():
            return np.asarray(at.axes[expr.axis], dtype=np.int64)
        case Param():
            return np.asarray(at.params[expr.name], dtype=np.int64)
        case Binary():
            lhs, rhs = evaluate_int(expr.lhs, at), evaluate_int(expr.rhs, at)
            return np.asarray(_binary(expr.op, lhs, rhs))
        case Abs():
            return np.asarray(np.abs(evaluate_int(expr.operand, at)))
        case Read():
            return _read(expr, at)
        case _:
            assert_never(expr)


def evaluate(expr: BoolExpr, at: Point) -> Bools:
    """The truth value of `expr`. Raises `KeyError` for a missing axis."""
    match expr:
        case Truth():
            return np.asarray(expr.value)
        case Compare():
            lhs, rhs = evaluate_int(expr.lhs, at), evaluate_int(expr.rhs, at)
            return np.asarray(_compare(expr.op, lhs, rhs))
        case All():
            seen = np.asarray(True)
            for term in expr.terms:
                seen = seen & evaluate(term, at)
            return np.asarray(seen)
        case Any():
            seen = np.asarray(False)
            for term in expr.terms:
                seen = seen | evaluate(term, at)
            return np.asarray(seen)
        case Not():
            return np.asarray(~evaluate(expr.term, at))
        case _:
            assert_never(expr)


def dense_mask(
    mask: BoolExpr,
    head: int,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    params: Mapping[str, int] | None = None,
    tables: Tables | None = None,
) -> Bools:
    """The mask of one head, of one batch element, as a bool array [n_q, n_k].

    Row `r` is the query at absolute position `r + q_offset`; the default offset
    `n_k - n_q` aligns the last query with the last key.
    """
    offset = n_k - n_q if q_offset is None else q_offset
    queries = np.arange(n_q, dtype=np.int64)[:, None] + offset
    keys = np.arange(n_k, dtype=np.int64)[None, :]
    axes: dict[Axis, int | Ints] = {Axis.QUERY: queries, Axis.KEY: keys}
    axes |= {Axis.HEAD: head, Axis.LENGTH: n_k}
    seen = evaluate(mask, Point(axes, params or {}, tables or {}))
    return np.broadcast_to(seen, (n_q, n_k)).copy()


def _read(expr: Read, at: Point) -> Ints:
    """Outside of the table the value is 0: the guard beside it is false there."""
    table = np.asarray(at.tables[expr.table], dtype=np.int64)
    if table.size == 0:
        return np.asarray(0, dtype=np.int64)
    indices = [evaluate_int(index, at) for index in expr.indices]
    inside = np.asarray(True)
    for index, size in zip(indices, table.shape, strict=True):
        inside = inside & (index >= 0) & (index < size)
    clipped = tuple(
        np.clip(index, 0, size - 1)
        for index, size in zip(indices, table.shape, strict=True)
    )
    return np.where(inside, table[clipped], 0)


def _binary(op: IntOp, lhs: Ints, rhs: Ints) -> Ints:
    match op:
        case IntOp.ADD:
            return lhs + rhs
        case IntOp.SUB:
            return lhs - rhs
        case IntOp.MUL:
            return lhs * rhs
        case IntOp.FLOORDIV:
            return lhs // rhs
        case IntOp.MOD:
            return lhs % rhs
        case IntOp.MIN:
            return np.minimum(lhs, rhs)
        case IntOp.MAX:
            return np.maximum(lhs, rhs)
        case _:
            assert_never(op)


def _compare(op: CompareOp, lhs: Ints, rhs: Ints) -> Bools:
    match op:
        case CompareOp.LT:
            return lhs < rhs
        case CompareOp.LE:
            return lhs <= rhs
        case CompareOp.GT:
            return lhs > rhs
        case CompareOp.GE:
            return lhs >= rhs
        case CompareOp.EQ:
            return np.equal(lhs, rhs)
        case CompareOp.NE:
            return np.not_equal(lhs, rhs)
        case _:
            assert_never(op)
