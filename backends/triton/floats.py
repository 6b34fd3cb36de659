"""Floating expressions as Triton and PyTorch text.

In: a score, sink or output and what the names in it are called. Out: lines that assign
its value. Not its job: integers and truth values (`expr`), loading elements of inputs
(`tables`), where the text goes (`weigh`, `dense`).

Long expressions are taken apart: what does not fit in a line gets a name of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never, cast

import numpy as np

from patternc.backends.triton.expr import Printer, folded
from patternc.ir.nodes import (
    BoolExpr,
    Const,
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
    IntExpr,
)

_SUM, _PRODUCT, _UNARY, _ATOM = range(4)
_LEVEL = {
    FloatOp.ADD: _SUM,
    FloatOp.SUB: _SUM,
    FloatOp.MUL: _PRODUCT,
    FloatOp.DIV: _PRODUCT,
}

Text = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """How one language spells what Python's operators do not."""

    calls: Mapping[FloatFunction, str]
    least: str
    greatest: str
    select: str
    from_int: str
    number: str


TRITON = Target(
    {
        FloatFunction.ABS: "tl.abs",
        FloatFunction.EXP: "tl.exp",
        FloatFunction.LOG: "tl.log",
        FloatFunction.TANH: "tanh",
        FloatFunction.SIGMOID: "sigmoid",
        FloatFunction.SQRT: "tl.sqrt",
        FloatFunction.RELU: "relu",
        FloatFunction.SIGN: "sign",
    },
    "least",
    "greatest",
    "tl.where",
    "tl.cast({}, tl.float32)",
    "{}",
)
"""All that is not `tl`'s is in `floats.py.tmpl` and `sigmoid.py.tmpl`."""

TORCH = Target(
    {
        FloatFunction.ABS: "torch.abs",
        FloatFunction.EXP: "torch.exp",
        FloatFunction.LOG: "torch.log",
        FloatFunction.TANH: "torch.tanh",
        FloatFunction.SIGMOID: "torch.sigmoid",
        FloatFunction.SQRT: "torch.sqrt",
        FloatFunction.RELU: "torch.relu",
        FloatFunction.SIGN: "torch.sign",
    },
    "torch.minimum",
    "torch.maximum",
    "torch.where",
    "as_float({})",
    "number({})",
)
"""`number` and `as_float` make tensors; the text around defines them."""


@dataclass
class FloatPrinter:
    """Writes one assignment; `lines` gather what had to be taken apart.

    A subexpression with more than `width` characters gets a name.
    """

    target: Target
    discrete: Printer
    reads: Mapping[FloatRead, str]
    given: Mapping[Given, str]
    name: str
    indent: int
    width: int = 40
    lines: list[str] = field(default_factory=list)
    parts: int = 0

    def text_of_all(self, expr: FloatExpr) -> str:
        """The text of the whole expression."""
        return self._node(expr)[0]

    def text(self, expr: FloatExpr, outer: int = _SUM) -> str:
        """The text of an operand whose operator binds as `outer` does."""
        found, level = self._node(expr)
        if len(found) > self.width:
            return self._named(lambda name: [f"{name} = {found}"])
        return f"({found})" if level < outer else found

    def _named(self, assign: Callable[[str], list[str]]) -> str:
        self.parts += 1
        name = f"{self.name}_{self.parts}"
        self.lines += assign(name)
        return name

    def _node(self, expr: FloatExpr) -> Text:
        match expr:
            case FloatConst():
                text = self.target.number.format(number_text(expr.value))
                return text, _UNARY if text.startswith("-") else _ATOM
            case GivenValue():
                return self.given[expr.which], _ATOM
            case FromInt():
                return self.target.from_int.format(self._discrete(expr.operand)), _ATOM
            case FloatRead():
                return self.reads[expr], _ATOM
            case FloatBinary():
                return self._binary(expr)
            case FloatCall(function=FloatFunction.NEGATE):
                return f"-{self.text(expr.operand, _ATOM)}", _UNARY
            case FloatCall():
                operand = self.text(expr.operand)
                return f"{self.target.calls[expr.function]}({operand})", _ATOM
            case FloatSelect():
                condition = self._discrete(expr.condition)
                sides = f"{self.text(expr.then)}, {self.text(expr.otherwise)}"
                return f"{self.target.select}({condition}, {sides})", _ATOM
            case _:
                assert_never(expr)

    def _binary(self, expr: FloatBinary) -> Text:
        if expr.op in _LEVEL:
            level = _LEVEL[expr.op]
            lhs, rhs = self.text(expr.lhs, level), self.text(expr.rhs, level + 1)
            return f"{lhs} {expr.op.value} {rhs}", level
        word = self.target.least if expr.op is FloatOp.MIN else self.target.greatest
        return f"{word}({self.text(expr.lhs)}, {self.text(expr.rhs)})", _ATOM

    def _discrete(self, expr: IntExpr | BoolExpr) -> str:
        text = self.discrete.print(expr)
        if len(text) <= self.width:
            return text
        return self._named(lambda name: self.discrete.assign(name, expr, self.indent))


def held_number(value: float) -> float:
    """A number; what float32 cannot hold is 0 or infinite."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = float(np.float32(value))
    if not math.isfinite(narrow):
        return narrow
    return 0.0 if abs(narrow) < float(np.finfo(np.float32).tiny) else float(value)


def number_text(value: float) -> str:
    """A float32 number as source text; what float32 cannot hold is 0 or infinite."""
    found = held_number(value)
    return repr(found) if math.isfinite(found) else f'float("{found}")'


def folded_float(expr: FloatExpr) -> FloatExpr:
    """`expr` with every operation on numbers alone replaced by its value.

    Triton's functions take tensors, not numbers. Integers inside are folded too, as
    their printer does, so that a read is known by the same indices everywhere.
    """
    match expr:
        case FloatConst() | GivenValue():
            return expr
        case FloatRead():
            return replace(expr, indices=tuple(_folded(at) for at in expr.indices))
        case FromInt():
            operand = _folded(expr.operand)
            if isinstance(operand, Const):
                return FloatConst(float(operand.value), expr.span)
            return replace(expr, operand=operand)
        case FloatBinary():
            lhs, rhs = folded_float(expr.lhs), folded_float(expr.rhs)
            if isinstance(lhs, FloatConst) and isinstance(rhs, FloatConst):
                return FloatConst(_apply(expr.op, lhs.value, rhs.value), expr.span)
            return replace(expr, lhs=lhs, rhs=rhs)
        case FloatCall():
            operand_float = folded_float(expr.operand)
            if isinstance(operand_float, FloatConst):
                value = _call(expr.function, operand_float.value)
                return FloatConst(value, expr.span)
            return replace(expr, operand=operand_float)
        case FloatSelect():
            then, otherwise = folded_float(expr.then), folded_float(expr.otherwise)
            condition = cast(BoolExpr, folded(expr.condition))
            return replace(expr, condition=condition, then=then, otherwise=otherwise)
        case _:
            assert_never(expr)


def _folded(expr: IntExpr) -> IntExpr:
    return cast(IntExpr, folded(expr))


def _apply(op: FloatOp, lhs: float, rhs: float) -> float:
    a, b = np.float64(lhs), np.float64(rhs)
    with np.errstate(all="ignore"):
        match op:
            case FloatOp.ADD:
                return float(a + b)
            case FloatOp.SUB:
                return float(a - b)
            case FloatOp.MUL:
                return float(a * b)
            case FloatOp.DIV:
                return float(a / b)
            case FloatOp.MIN:
                return float(np.minimum(a, b))
            case FloatOp.MAX:
                return float(np.maximum(a, b))
            case _:
                assert_never(op)


def _call(function: FloatFunction, operand: float) -> float:
    x = np.float64(operand)
    with np.errstate(all="ignore"):
        match function:
            case FloatFunction.NEGATE:
                return float(-x)
            case FloatFunction.ABS:
                return float(np.abs(x))
            case FloatFunction.EXP:
                return float(np.exp(x))
            case FloatFunction.LOG:
                return float(np.log(x))
            case FloatFunction.TANH:
                return float(np.tanh(x))
            case FloatFunction.SIGMOID:
                return float(1 / (1 + np.exp(-x)))
            case FloatFunction.SQRT:
                return float(np.sqrt(x))
            case FloatFunction.RELU:
                return float(np.maximum(x, 0.0))
            case FloatFunction.SIGN:
                return float(np.sign(x))
            case _:
                assert_never(function)
