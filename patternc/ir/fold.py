"""Constant folding of expressions. In: an expression. Out: the same value, fewer nodes.

Not its job: anything that needs to know the range of an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never, cast

from patternc.ir.evaluate import Point, evaluate
from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
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
from patternc.ir.walk import axes_of, rewrite, substitute


def fold_bool(expr: BoolExpr) -> BoolExpr:
    """A truth value with its constants folded."""
    return cast(BoolExpr, rewrite(expr, _fold))


def fold_int(expr: IntExpr) -> IntExpr:
    """An integer with its constants folded."""
    return cast(IntExpr, rewrite(expr, _fold))


def _fold(expr: Expr) -> Expr:
    match expr:
        case Const() | Index() | Param() | Truth() | Read():
            return expr
        case Abs(operand=Const(value=value)):
            return Const(abs(value), expr.span)
        case Abs():
            return expr
        case Binary():
            return _fold_binary(expr)
        case Compare(lhs=Const(), rhs=Const()):
            return Truth(bool(evaluate(expr, Point({}))), expr.span)
        case Compare():
            return expr
        case All():
            return _fold_terms(expr, absorbing=False)
        case Any():
            return _fold_terms(expr, absorbing=True)
        case Not(term=Truth(value=value)):
            return Truth(not value, expr.span)
        case Not():
            return expr
        case _:
            assert_never(expr)


def _fold_terms(expr: All | Any, absorbing: bool) -> BoolExpr:
    """`absorbing` is the truth value of one term that decides the whole."""
    if any(term == Truth(absorbing) for term in expr.terms):
        return Truth(absorbing, expr.span)
    terms = tuple(term for term in expr.terms if not isinstance(term, Truth))
    if not terms:
        return Truth(not absorbing, expr.span)
    return terms[0] if len(terms) == 1 else replace(expr, terms=terms)


def _fold_binary(expr: Binary) -> IntExpr:
    match expr:
        case Binary(lhs=Const(value=a), rhs=Const(value=b)):
            return Const(_compute(expr.op, a, b), expr.span)
        case Binary(op=IntOp.ADD | IntOp.SUB):
            return _fold_sum(expr)
        case Binary(op=IntOp.MUL, rhs=Const(value=1)):
            return expr.lhs
        case Binary(op=IntOp.MUL, lhs=Const(value=1)):
            return expr.rhs
        case (
            Binary(op=IntOp.MUL, lhs=Const(value=0))
            | Binary(op=IntOp.MUL, rhs=Const(value=0))
        ):
            return Const(0, expr.span)
        case Binary(op=IntOp.FLOORDIV, rhs=Const(value=1)):
            return expr.lhs
        case Binary(op=IntOp.MOD, rhs=Const(value=1 | -1)):
            return Const(0, expr.span)
        case Binary(op=IntOp.MOD, rhs=Const(value=modulus)):
            base, shift = _split_sum(expr.lhs)
            reduced = _with_shift(base, shift % modulus, expr.lhs)
            return replace(expr, lhs=reduced)
        case Binary(op=IntOp.MIN | IntOp.MAX, lhs=lhs, rhs=rhs) if lhs == rhs:
            return lhs
        case _:
            return expr


def _fold_sum(expr: Binary) -> IntExpr:
    """Move the constants of a sum into one, at its end: `(k + 3) + 1` to `k + 4`."""
    base, shift = _split_sum(expr)
    if base is None:
        return Const(shift, expr.span)
    return _with_shift(base, shift, expr)


def _split_sum(expr: IntExpr) -> tuple[IntExpr | None, int]:
    """An expression as the sum of a part without constants (None if 0) and a number."""
    match expr:
        case Const(value=value):
            return None, value
        case Binary(op=IntOp.ADD, lhs=lhs, rhs=rhs):
            (left, a), (right, b) = _split_sum(lhs), _split_sum(rhs)
            if left is None or right is None:
                return left or right, a + b
            return replace(expr, lhs=left, rhs=right), a + b
        case Binary(op=IntOp.SUB, lhs=lhs, rhs=rhs):
            (left, a), (right, b) = _split_sum(lhs), _split_sum(rhs)
            if right is None:
                return left, a - b
            return replace(expr, lhs=left or Const(0, lhs.span), rhs=right), a - b
        case _:
            return expr, 0


def _with_shift(base: IntExpr | None, shift: int, written: IntExpr) -> IntExpr:
    """`base + shift`, in the place of what was `written`."""
    if base is None:
        return Const(shift, written.span)
    if shift == 0:
        return base
    match base:
        case Binary(op=IntOp.SUB, lhs=Const(value=0), rhs=rhs):
            return Binary(IntOp.SUB, Const(shift, written.span), rhs, written.span)
        case _:
            op = IntOp.ADD if shift > 0 else IntOp.SUB
            return Binary(op, base, Const(abs(shift), written.span), written.span)


def _compute(op: IntOp, a: int, b: int) -> int:
    """Python's integers, so that nothing overflows while it is folded."""
    match op:
        case IntOp.ADD:
            return a + b
        case IntOp.SUB:
            return a - b
        case IntOp.MUL:
            return a * b
        case IntOp.FLOORDIV:
            return a // b
        case IntOp.MOD:
            return a % b
        case IntOp.MIN:
            return min(a, b)
        case IntOp.MAX:
            return max(a, b)
        case _:
            assert_never(op)


def head_classes(mask: BoolExpr, heads: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The heads that surely have the same mask together, in order.

    Two heads are put together if their masks are one expression after constants are
    folded; heads that are equal in a way that folding can't see stay apart.
    """
    if Axis.HEAD not in axes_of(mask):
        return (tuple(heads),)
    classes: dict[BoolExpr, list[int]] = {}
    for head in heads:
        own = fold_bool(substitute(mask, {Axis.HEAD: Const(head)}))
        classes.setdefault(own, []).append(head)
    return tuple(tuple(members) for members in classes.values())
