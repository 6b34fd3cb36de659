"""Typed syntax to floating expressions: scores, sinks and outputs.

In: an expression that `check.types` accepts in such a clause, and the environment. Out:
an `ir.FloatExpr`. What is an integer as written stays one as far up as it goes, and is
exact. Not its job: heads (`check.cases`), meaning (`backends.floats`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from patternc.check import reads, terms
from patternc.check.environment import Environment
from patternc.check.expand import Expansion
from patternc.check.scope import FLOAT_FUNCTIONS, GIVEN
from patternc.check.terms import Number, Truths
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import (
    Const,
    Element,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatOp,
    FloatRead,
    FloatSelect,
    FromInt,
    Given,
    GivenValue,
    IntOp,
)
from patternc.limits import EXPANSION
from patternc.source import Span
from patternc.syntax import ast
from patternc.syntax.measure import children

_OPS = {IntOp.ADD: FloatOp.ADD, IntOp.SUB: FloatOp.SUB, IntOp.MUL: FloatOp.MUL}

_FOLDED: dict[FloatOp, Callable[[float, float], float]] = {
    FloatOp.ADD: lambda a, b: a + b,
    FloatOp.SUB: lambda a, b: a - b,
    FloatOp.MUL: lambda a, b: a * b,
    FloatOp.DIV: lambda a, b: a / b,
    FloatOp.MIN: min,
    FloatOp.MAX: max,
}


@dataclass(frozen=True, slots=True)
class Real:
    """A floating expression and how many nodes it has, written out."""

    expr: FloatExpr
    size: int


@dataclass
class Floats:
    """One run over one score, sink or output; `run` collects errors of its integers."""

    env: Environment
    run: Expansion = field(default_factory=Expansion)

    def lower(self, expr: ast.Expr) -> Real:
        """The IR of a number. Raises `PatternError` beyond the limits."""
        if is_integer(expr, self.env):
            return _from_int(self.run.number(expr, self.env))
        self.run.enter(expr.span, self.env)
        result = self.inside(expr)
        self.run.level -= 1
        if result.size > EXPANSION:
            message = f"this grows beyond {EXPANSION} operations"
            raise PatternError([Diagnostic("expansion", message, expr.span)])
        return result

    def inside(self, expr: ast.Expr) -> Real:
        match expr:
            case ast.Decimal():
                return _constant(expr.value, expr.span)
            case ast.Name(text=text) if text in self.env.decimals:
                return _constant(self.env.decimals[text], expr.span)
            case ast.Name(text=text) if text in self.env.inputs:
                return self.read(text, (), expr.span)
            case ast.Name(text=text):
                return Real(GivenValue(Given(text), expr.span), 1)
            case ast.Indexed(target=ast.Name(text=text)):
                return self.read(text, expr.indices, expr.span)
            case ast.Negative():
                return _called(
                    FloatFunction.NEGATE, self.lower(expr.operand), expr.span
                )
            case ast.Arithmetic():
                lhs, rhs = self.lower(expr.lhs), self.lower(expr.rhs)
                return _joined(_OPS[expr.op], lhs, rhs, expr.span)
            case ast.Ratio():
                return self.ratio(self.lower(expr.lhs), self.lower(expr.rhs), expr)
            case ast.Call():
                return self.call(expr)
        raise TypeError(f"not a number: {expr}")

    def ratio(self, lhs: Real, rhs: Real, expr: ast.Expr) -> Real:
        if isinstance(rhs.expr, FloatConst) and rhs.expr.value == 0:
            message = "division by zero"
            raise PatternError([Diagnostic("zero-division", message, expr.span)])
        return _joined(FloatOp.DIV, lhs, rhs, expr.span)

    def call(self, call: ast.Call) -> Real:
        """A function of decimal numbers."""
        name, span = call.name.text, call.span
        if name == "where":
            run = self.run.truths(call.arguments[0], self.env)
            then, otherwise = (self.lower(part) for part in call.arguments[1:])
            return _selected(run, then, otherwise, span)
        parts = [self.lower(argument) for argument in call.arguments]
        match name:
            case "softcap":  # x in (-c, c): c * tanh(x / c), Gemma 2
                cap = parts[1]
                inner = self.ratio(parts[0], cap, call)
                bent = _called(FloatFunction.TANH, inner, span)
                return _joined(FloatOp.MUL, cap, bent, span)
            case "clamp":
                least = _joined(FloatOp.MAX, parts[0], parts[1], span)
                return _joined(FloatOp.MIN, least, parts[2], span)
            case "min" | "max":
                result = parts[0]
                for part in parts[1:]:
                    result = _joined(FloatOp(name), result, part, span)
                return result
        return _called(FloatFunction(name), parts[0], span)

    def read(self, name: str, written: Sequence[ast.Expr], span: Span) -> Real:
        """An element of a floating input: 0 outside, and where an index means nothing."""
        table = self.env.inputs[name]
        indices = [self.run.number(index, self.env) for index in written]
        self.run.found.extend(reads.read_errors(table, indices, span))
        expr = FloatRead(name, tuple(index.expr for index in indices), span)
        size = 1 + sum(index.size for index in indices)
        return _where_known(Real(expr, size), terms.guards_of(*indices), span)


def is_integer(expr: ast.Expr, env: Environment) -> bool:
    """Whether a well-typed number is an integer."""
    match expr:
        case ast.Decimal() | ast.Ratio():
            return False
        case ast.Name(text=text):
            if text in env.decimals or (text in GIVEN and text not in env.values):
                return False
            return text not in env.inputs or env.inputs[text].element is Element.INT
        case ast.Indexed(target=ast.Name(text=text)) if text in env.inputs:
            return env.inputs[text].element is Element.INT
        case ast.Call(name=ast.Name(text=text)) if text in FLOAT_FUNCTIONS:
            return False
        case ast.Negative() | ast.Arithmetic() | ast.Call():
            return all(is_integer(part, env) for part in children(expr))
    return True


def _constant(value: Fraction, span: Span) -> Real:
    return Real(FloatConst(float(value), span), 1)


def _from_int(number: Number) -> Real:
    """An integer; 0 where its reads or coordinates mean nothing."""
    span = number.expr.span
    if isinstance(number.expr, Const):
        return Real(FloatConst(float(number.expr.value), span), 1)
    result = Real(FromInt(number.expr, span), 1 + number.size)
    return _where_known(result, number.guards, span)


def _where_known(value: Real, guards: Sequence[Truths], span: Span) -> Real:
    if not guards:
        return value
    zero = Real(FloatConst(0.0, span), 1)
    return _selected(terms.all_of(guards, span), value, zero, span)


def _selected(condition: Truths, then: Real, otherwise: Real, span: Span) -> Real:
    expr = FloatSelect(condition.expr, then.expr, otherwise.expr, span)
    return Real(expr, 1 + condition.size + then.size + otherwise.size)


def _called(function: FloatFunction, operand: Real, span: Span) -> Real:
    if function is FloatFunction.NEGATE and isinstance(operand.expr, FloatConst):
        return Real(FloatConst(-operand.expr.value, span), 1)
    return Real(FloatCall(function, operand.expr, span), 1 + operand.size)


def _joined(op: FloatOp, lhs: Real, rhs: Real, span: Span) -> Real:
    if isinstance(lhs.expr, FloatConst) and isinstance(rhs.expr, FloatConst):
        value = _FOLDED[op](lhs.expr.value, rhs.expr.value)
        if not math.isfinite(value):
            raise PatternError([Diagnostic("overflow", "this is not finite", span)])
        return Real(FloatConst(value, span), 1)
    return Real(FloatBinary(op, lhs.expr, rhs.expr, span), 1 + lhs.size + rhs.size)
