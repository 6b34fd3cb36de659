"""The meaning of scores, sinks and outputs, in PyTorch with autograd.

In: a floating expression and a point: integers for its axes, parameters and tables
(as in `ir.evaluate`, which is asked for every integer and truth value), tensors for
`s`, `o`, `v` and for the floating inputs. Out: its value by broadcasting. Not its job:
which pairs are looked at, and what becomes of the value (`backends.reference`,
`backends.tiled`).

A value is computed only where it counts. An invisible pair, or the branch of a
`where` that was not taken, might be infinite, or have an infinite derivative, and then
a gradient of 0 would become NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from patternc.ir.evaluate import Bools, Ints, Point, evaluate, evaluate_int
from patternc.ir.floats import float_subexpressions
from patternc.ir.nodes import (
    Axis,
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


@dataclass(frozen=True, slots=True)
class FloatPoint:
    """Where a floating expression is looked at, for one batch element's inputs.

    The arrays in `point` and the tensors in `known` broadcast together. `known` has a
    value for each of `s`, `o` and `v` that is read; it may have one for reads too.
    `inputs` holds the floating inputs without a batch axis, in the dtype and on the
    device of everything that is computed.
    """

    point: Point
    known: Mapping[FloatExpr, Tensor]
    inputs: Mapping[str, Tensor]
    dtype: torch.dtype
    device: torch.device

    def with_axis(self, axis: Axis, values: Ints) -> FloatPoint:
        """The same, spread along one more axis."""
        axes = {**self.point.axes, axis: values}
        return replace(self, point=replace(self.point, axes=axes))

    def knowing(self, known: Mapping[FloatExpr, Tensor]) -> FloatPoint:
        """The same with other known values."""
        return replace(self, known=known)

    def where(self, seen: Bools) -> FloatPoint:
        """The same at the places where `seen` [the shape of all of it], in one row."""
        axes = {
            axis: np.broadcast_to(np.asarray(value, dtype=np.int64), seen.shape)[seen]
            for axis, value in self.point.axes.items()
        }
        chosen = self.tensor(seen)
        known = {
            expr: value.expand(seen.shape)[chosen] for expr, value in self.known.items()
        }
        return replace(self, point=replace(self.point, axes=axes), known=known)

    def tensor(self, values: Bools | Ints) -> Tensor:
        """An array that NumPy made, on the device; its dtype stays."""
        return torch.from_numpy(np.array(values)).to(self.device)

    def shape_with(self, seen: Bools) -> tuple[int, ...]:
        """The shape of all that this point holds, and of `seen`."""
        arrays = [np.shape(value) for value in self.point.axes.values()]
        tensors = [tuple(value.shape) for value in self.known.values()]
        return np.broadcast_shapes(seen.shape, *arrays, *tensors)


def evaluate_float(expr: FloatExpr, at: FloatPoint) -> Tensor:
    """The value of `expr`; its shape broadcasts to that of the point."""
    match expr:
        case FloatConst():
            # Filled, and not copied to the device: nothing waits for a plan.
            return torch.full((), expr.value, dtype=at.dtype, device=at.device)
        case GivenValue():
            return at.known[expr]
        case FromInt():
            return at.tensor(evaluate_int(expr.operand, at.point)).to(at.dtype)
        case FloatRead():
            if expr in at.known:
                return at.known[expr]
            return read_values(expr, at)
        case FloatBinary():
            lhs, rhs = evaluate_float(expr.lhs, at), evaluate_float(expr.rhs, at)
            return _binary(expr.op, lhs, rhs)
        case FloatCall():
            return call_function(expr.function, evaluate_float(expr.operand, at))
        case FloatSelect():
            return _select(expr, at)
        case _:
            assert_never(expr)


def evaluate_where(expr: FloatExpr, at: FloatPoint, seen: Bools, fill: float) -> Tensor:
    """The value of `expr` where `seen`, elsewhere `fill`; no gradient comes from there.

    The result has the shape of all that `at` and `seen` hold.
    """
    seen = np.broadcast_to(seen, at.shape_with(seen))
    if seen.all():
        return evaluate_float(expr, at).expand(seen.shape)
    chosen = at.tensor(seen)
    if may_blow_up(expr):
        values = evaluate_float(expr, at.where(seen))
        empty = torch.full(seen.shape, fill, dtype=at.dtype, device=at.device)
        count = int(np.count_nonzero(seen))
        return empty.masked_scatter(chosen, values.expand(count))
    known = {key: torch.where(chosen, value, 0) for key, value in at.known.items()}
    values = evaluate_float(expr, replace(at, known=known))
    return torch.where(chosen, values, fill)


def may_blow_up(expr: FloatExpr) -> bool:
    """Whether finite values may give an infinite one, or an infinite derivative."""
    for node in float_subexpressions(expr):
        match node:
            case FloatCall(
                function=FloatFunction.LOG | FloatFunction.SQRT | FloatFunction.EXP
            ):
                return True
            case FloatBinary(op=FloatOp.DIV, rhs=rhs):
                if not isinstance(rhs, FloatConst) or rhs.value == 0:
                    return True
    return False


def read_values(read: FloatRead, at: FloatPoint) -> Tensor:
    """The elements of an input that a read names, 0 outside of it."""
    table = at.inputs[read.table]
    if table.numel() == 0:
        return torch.zeros((), dtype=at.dtype, device=at.device)
    places, inside = _places(read, at)
    values = table[places]
    return values if inside is None else torch.where(inside, values, 0)


def add_read_gradient(
    total: Tensor, read: FloatRead, at: FloatPoint, gradient: Tensor
) -> None:
    """Add the gradient of `read_values` to that of the input, `total`, in place."""
    if total.numel() == 0:
        return
    places, inside = _places(read, at)
    if inside is not None:
        gradient = torch.where(inside, gradient, 0)
    if places:
        total.index_put_(places, gradient, accumulate=True)
    else:  # one number for the whole batch element
        total.add_(gradient)


def _places(
    read: FloatRead, at: FloatPoint
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Index tensors inside the input, and where they are as written (None: always)."""
    sizes = at.inputs[read.table].shape
    inside = np.asarray(True)
    places = []
    for index, size in zip(read.indices, sizes, strict=True):
        place = evaluate_int(index, at.point)
        inside = inside & (place >= 0) & (place < size)
        places.append(at.tensor(np.clip(place, 0, size - 1)))
    return tuple(places), None if inside.all() else at.tensor(inside)


def _select(expr: FloatSelect, at: FloatPoint) -> Tensor:
    seen = evaluate(expr.condition, at.point)
    if seen.all():
        return evaluate_float(expr.then, at)
    if not seen.any():
        return evaluate_float(expr.otherwise, at)
    if may_blow_up(expr.then) or may_blow_up(expr.otherwise):
        then = evaluate_where(expr.then, at, seen, 0.0)
        return then + evaluate_where(expr.otherwise, at, ~seen, 0.0)
    then, otherwise = (evaluate_float(part, at) for part in (expr.then, expr.otherwise))
    return torch.where(at.tensor(seen), then, otherwise)


def _binary(op: FloatOp, lhs: Tensor, rhs: Tensor) -> Tensor:
    match op:
        case FloatOp.ADD:
            return lhs + rhs
        case FloatOp.SUB:
            return lhs - rhs
        case FloatOp.MUL:
            return lhs * rhs
        case FloatOp.DIV:
            return lhs / rhs
        case FloatOp.MIN:
            return torch.minimum(lhs, rhs)
        case FloatOp.MAX:
            return torch.maximum(lhs, rhs)
        case _:
            assert_never(op)


def call_function(function: FloatFunction, operand: Tensor) -> Tensor:
    """The value of a function of one number, for each element."""
    match function:
        case FloatFunction.NEGATE:
            return -operand
        case FloatFunction.ABS:
            return operand.abs()
        case FloatFunction.EXP:
            return operand.exp()
        case FloatFunction.LOG:
            return operand.log()
        case FloatFunction.TANH:
            return operand.tanh()
        case FloatFunction.SIGMOID:
            return operand.sigmoid()
        case FloatFunction.SQRT:
            return operand.sqrt()
        case FloatFunction.RELU:
            return operand.relu()
        case FloatFunction.SIGN:
            return operand.sign()
        case _:
            assert_never(function)
