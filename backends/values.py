"""Expressions on tensors of a device.

In: an expression of the IR and, for every axis, parameter and input that it reads, an
integer or a tensor. Out: its value by broadcasting: a number, or a tensor on their
device. Nothing waits for the device, and nothing is copied to it, so that a CUDA graph
can hold all of it. Not its job: meaning (`ir.evaluate`, `backends.floats`, which the
tests hold this to), gradients: there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor

from patternc.backends.floats import call_function
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
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatOp,
    FloatRead,
    FloatSelect,
    FromInt,
    GivenValue,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)

Integers = Tensor | int
Truths = Tensor | bool
Numbers = Tensor | float


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression is looked at.

    Everything broadcasts to [B, H, ...]: `axes` holds int64 tensors, `batch` the
    numbers of batch elements [B, 1, ...], `inputs` every input with a batch axis of 1
    or B, `known` what `s` is.
    """

    axes: Mapping[Axis, Integers]
    params: Mapping[str, int]
    inputs: Mapping[str, Tensor]
    batch: Tensor
    known: Mapping[FloatExpr, Tensor] = field(default_factory=dict)


def integers_at(expr: IntExpr, at: Place) -> Integers:
    """The value of an integer expression, int64."""
    match expr:
        case Const():
            return expr.value
        case Index():
            return at.axes[expr.axis]
        case Param():
            return at.params[expr.name]
        case Binary():
            lhs, rhs = integers_at(expr.lhs, at), integers_at(expr.rhs, at)
            return _binary(expr.op, lhs, rhs)
        case Abs():
            inner = integers_at(expr.operand, at)
            return abs(inner) if isinstance(inner, int) else inner.abs()
        case Read():
            found = _read(expr.table, expr.indices, at)
            return found.to(torch.int64)
        case _:
            assert_never(expr)


def truths_at(expr: BoolExpr, at: Place) -> Truths:
    """The value of a condition."""
    match expr:
        case Truth():
            return expr.value
        case Compare():
            lhs, rhs = integers_at(expr.lhs, at), integers_at(expr.rhs, at)
            return compared(expr.op, lhs, rhs)
        case All():
            held: Truths = True
            for term in expr.terms:
                held = held & truths_at(term, at)
            return held
        case Any():
            held = False
            for term in expr.terms:
                held = held | truths_at(term, at)
            return held
        case Not():
            held = truths_at(expr.term, at)
            return not held if isinstance(held, bool) else ~held
        case _:
            assert_never(expr)


def numbers_at(expr: FloatExpr, at: Place) -> Numbers:
    """The value of a floating expression, in the dtype of the floating inputs."""
    match expr:
        case FloatConst():
            return expr.value
        case GivenValue():
            return at.known[expr]
        case FromInt():
            found = integers_at(expr.operand, at)
            wide = _dtype_of(at)
            return float(found) if isinstance(found, int) else found.to(wide)
        case FloatRead():
            return _read(expr.table, expr.indices, at)
        case FloatBinary():
            lhs, rhs = numbers_at(expr.lhs, at), numbers_at(expr.rhs, at)
            return _arithmetic(expr.op, lhs, rhs, at)
        case FloatCall():
            operand = _tensor(numbers_at(expr.operand, at), at)
            return call_function(expr.function, operand)
        case FloatSelect():
            held = truths_at(expr.condition, at)
            then, other = numbers_at(expr.then, at), numbers_at(expr.otherwise, at)
            if isinstance(held, bool):
                return then if held else other
            return torch.where(held, _tensor(then, at), _tensor(other, at))
        case _:
            assert_never(expr)


def compared(op: CompareOp, lhs: Numbers, rhs: Numbers) -> Truths:
    """`lhs op rhs`; false where one of them is NaN."""
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
            return lhs == rhs
        case CompareOp.NE:
            return lhs != rhs
        case _:
            assert_never(op)


def _read(table: str, indices: tuple[IntExpr, ...], at: Place) -> Tensor:
    """An element of an input: 0 outside of it."""
    values = at.inputs[table]
    if values.numel() == 0:
        return values.new_zeros(())
    places: list[Tensor] = [at.batch % values.shape[0]]
    inside: Truths = True
    for index, size in zip(indices, values.shape[1:], strict=True):
        place = integers_at(index, at)
        if isinstance(place, int):
            place = torch.full_like(at.batch, place)
        inside = inside & (place >= 0) & (place < size)
        places.append(place.clamp(0, size - 1))
    found = values[tuple(places)]
    # Not a product: what lies at the place that stands in may be NaN.
    if isinstance(inside, bool):
        return found
    return torch.where(inside, found, found.new_zeros(()))


def _binary(op: IntOp, lhs: Integers, rhs: Integers) -> Integers:
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
        case IntOp.MIN | IntOp.MAX:
            return _extreme(lhs, rhs, op is IntOp.MIN)
        case _:
            assert_never(op)


def _extreme(lhs: Integers, rhs: Integers, least: bool) -> Integers:
    if isinstance(lhs, int) and isinstance(rhs, int):
        return min(lhs, rhs) if least else max(lhs, rhs)
    if isinstance(lhs, int):
        lhs, rhs = rhs, lhs
    assert isinstance(lhs, Tensor)
    if isinstance(rhs, int):
        return lhs.clamp(max=rhs) if least else lhs.clamp(min=rhs)
    return torch.minimum(lhs, rhs) if least else torch.maximum(lhs, rhs)


def _arithmetic(op: FloatOp, lhs: Numbers, rhs: Numbers, at: Place) -> Numbers:
    match op:
        case FloatOp.ADD:
            return lhs + rhs
        case FloatOp.SUB:
            return lhs - rhs
        case FloatOp.MUL:
            return lhs * rhs
        case FloatOp.DIV:
            return _tensor(lhs, at) / rhs
        case FloatOp.MIN:
            return torch.minimum(_tensor(lhs, at), _tensor(rhs, at))
        case FloatOp.MAX:
            return torch.maximum(_tensor(lhs, at), _tensor(rhs, at))
        case _:
            assert_never(op)


def _tensor(x: Numbers, at: Place) -> Tensor:
    if isinstance(x, Tensor):
        return x
    return torch.full((), x, dtype=_dtype_of(at), device=at.batch.device)


def _dtype_of(at: Place) -> torch.dtype:
    """float64 where the floating values at hand are, else float32."""
    tensors = (*at.known.values(), *at.inputs.values())
    wide = any(x.dtype == torch.float64 for x in tensors)
    return torch.float64 if wide else torch.float32
