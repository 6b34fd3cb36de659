"""Derivatives of floating expressions.

In: an expression and what it is derived by: the logit `s`, or an element of an input.
Out: an expression over the same values. Not its job: where a derivative is used (the
backends' backward passes), integers and truth values, which have none.

At a kink the choice is that of PyTorch's autograd: `abs` and `relu` have slope 0 at 0,
`min` and `max` of equal numbers give half to each side.
"""

from __future__ import annotations

from typing import assert_never

from patternc.ir.nodes import (
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatOp,
    FloatRead,
    FloatSelect,
    FromInt,
    GivenValue,
)

ZERO, ONE, _HALF = FloatConst(0.0), FloatConst(1.0), FloatConst(0.5)


def derive(expr: FloatExpr, by: GivenValue | FloatRead) -> FloatExpr:
    """The derivative of `expr` by one value that it reads; `ZERO` if it does not.

    All reads of the same element are one value. Never fails; where a derivative is
    infinite, so is the expression.
    """
    if expr == by:
        return ONE
    match expr:
        case FloatConst() | GivenValue() | FromInt() | FloatRead():
            return ZERO
        case FloatBinary():
            return _binary(expr, derive(expr.lhs, by), derive(expr.rhs, by))
        case FloatCall():
            inner = derive(expr.operand, by)
            return ZERO if inner == ZERO else _product(inner, _slope(expr))
        case FloatSelect():
            then, otherwise = derive(expr.then, by), derive(expr.otherwise, by)
            if then == otherwise:
                return then
            return FloatSelect(expr.condition, then, otherwise, expr.span)
        case _:
            assert_never(expr)


def _binary(expr: FloatBinary, lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    """The derivative of a binary operation, from those of its sides."""
    match expr.op:
        case FloatOp.ADD:
            return _sum(lhs, rhs)
        case FloatOp.SUB:
            return _difference(lhs, rhs)
        case FloatOp.MUL:
            return _sum(_product(lhs, expr.rhs), _product(expr.lhs, rhs))
        case FloatOp.DIV:
            ratio = _quotient(_product(expr.lhs, rhs), _product(expr.rhs, expr.rhs))
            return _difference(_quotient(lhs, expr.rhs), ratio)
        case FloatOp.MIN:
            return _mixed(_difference(expr.rhs, expr.lhs), lhs, rhs)
        case FloatOp.MAX:
            return _mixed(_difference(expr.lhs, expr.rhs), lhs, rhs)
        case _:
            assert_never(expr.op)


def _mixed(ahead: FloatExpr, lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    """`lhs` where `ahead` is positive, `rhs` where negative, half of each at 0."""
    half = _product(_HALF, FloatCall(FloatFunction.SIGN, ahead))
    return _sum(
        _product(lhs, _sum(_HALF, half)), _product(rhs, _difference(_HALF, half))
    )


def _slope(expr: FloatCall) -> FloatExpr:
    """The derivative of a function at its operand."""
    operand = expr.operand
    match expr.function:
        case FloatFunction.NEGATE:
            return FloatConst(-1.0)
        case FloatFunction.ABS:
            return FloatCall(FloatFunction.SIGN, operand)
        case FloatFunction.EXP:
            return expr
        case FloatFunction.LOG:
            return _quotient(ONE, operand)
        case FloatFunction.TANH:
            return _difference(ONE, _product(expr, expr))
        case FloatFunction.SIGMOID:
            return _product(expr, _difference(ONE, expr))
        case FloatFunction.SQRT:
            return _quotient(_HALF, expr)
        case FloatFunction.RELU:
            return FloatCall(FloatFunction.RELU, FloatCall(FloatFunction.SIGN, operand))
        case FloatFunction.SIGN:
            return ZERO
        case _:
            assert_never(expr.function)


def _sum(lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    if lhs == ZERO:
        return rhs
    return lhs if rhs == ZERO else FloatBinary(FloatOp.ADD, lhs, rhs)


def _difference(lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    if rhs == ZERO:
        return lhs
    if lhs == ZERO:
        return FloatCall(FloatFunction.NEGATE, rhs)
    return FloatBinary(FloatOp.SUB, lhs, rhs)


def _product(lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    if ZERO in (lhs, rhs):
        return ZERO
    if lhs == ONE:
        return rhs
    return lhs if rhs == ONE else FloatBinary(FloatOp.MUL, lhs, rhs)


def _quotient(lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    return ZERO if lhs == ZERO else FloatBinary(FloatOp.DIV, lhs, rhs)
