"""Scores, sinks and outputs mean what they say; values count only where they are used."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from patternc.backends.floats import (
    FloatPoint,
    add_read_gradient,
    evaluate_float,
    evaluate_where,
    may_blow_up,
    read_values,
)
from patternc.ir.evaluate import Ints, Point
from patternc.ir.nodes import (
    HEAD,
    KEY,
    QUERY,
    Axis,
    Binary,
    Compare,
    CompareOp,
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
    IntOp,
)

S = GivenValue(Given.SCORE)
BACK = Binary(IntOp.SUB, QUERY, KEY)
AHEAD = Compare(CompareOp.LT, QUERY, KEY)


def point(s: Tensor, **inputs: Tensor) -> FloatPoint:
    """Queries 0, 1, ... by keys 0, 1, ... of head 2; `s` is [queries, keys]."""
    rows, keys = (np.arange(size, dtype=np.int64) for size in s.shape)
    axes: dict[Axis, int | Ints] = {
        Axis.QUERY: rows[:, None],
        Axis.KEY: keys,
        Axis.HEAD: 2,
    }
    return FloatPoint(Point(axes), {S: s}, inputs, s.dtype, s.device)


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def call(function: FloatFunction, operand: FloatExpr) -> FloatExpr:
    return FloatCall(function, operand)


@pytest.mark.parametrize("op", FloatOp)
def test_each_binary_operation_is_pythons(op: FloatOp) -> None:
    found = evaluate_float(FloatBinary(op, S, FloatConst(0.7)), point(normal(3, 4)))
    pythons: dict[FloatOp, Callable[[float, float], float]] = {
        FloatOp.ADD: lambda a, b: a + b,
        FloatOp.SUB: lambda a, b: a - b,
        FloatOp.MUL: lambda a, b: a * b,
        FloatOp.DIV: lambda a, b: a / b,
        FloatOp.MIN: min,
        FloatOp.MAX: max,
    }
    expected = [[pythons[op](x, 0.7) for x in row] for row in normal(3, 4).tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("function", FloatFunction)
def test_each_function_is_that_of_the_math_module(function: FloatFunction) -> None:
    values = normal(3, 4).abs() + 0.1
    maths: dict[FloatFunction, Callable[[float], float]] = {
        FloatFunction.NEGATE: lambda x: -x,
        FloatFunction.ABS: abs,
        FloatFunction.EXP: math.exp,
        FloatFunction.LOG: math.log,
        FloatFunction.TANH: math.tanh,
        FloatFunction.SIGMOID: lambda x: 1 / (1 + math.exp(-x)),
        FloatFunction.SQRT: math.sqrt,
        FloatFunction.RELU: lambda x: max(x, 0.0),
        FloatFunction.SIGN: lambda x: math.copysign(1.0, x),
    }
    found = evaluate_float(call(function, S), point(values))
    expected = [[maths[function](x) for x in row] for row in values.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_an_integer_becomes_a_floating_number() -> None:
    found = evaluate_float(FromInt(BACK), point(normal(3, 2)))
    assert found.tolist() == [[0, -1], [1, 0], [2, 1]]
    assert found.dtype == torch.float64


def test_a_read_outside_is_0() -> None:
    read = FloatRead("bias", (BACK,))
    bias = torch.tensor([1.0, 2.0])
    found = evaluate_float(read, point(torch.zeros(4, 2), bias=bias))
    assert found.tolist() == [[1, 0], [2, 1], [0, 2], [0, 0]]
    none = evaluate_float(read, point(torch.zeros(4, 2), bias=bias[:0]))
    assert (none == 0).all()


def test_the_gradient_of_a_read_adds_up_where_an_element_is_read_again() -> None:
    read = FloatRead("bias", (BACK,))
    for bias in (normal(3), normal(7)):
        bias.requires_grad_()
        at = point(normal(4, 5), bias=bias)
        weight = normal(4, 5)
        (expected,) = torch.autograd.grad((read_values(read, at) * weight).sum(), bias)
        total = torch.zeros_like(bias)
        add_read_gradient(total, read, at, weight)
        torch.testing.assert_close(total, expected)


def test_a_read_without_indices_is_one_number() -> None:
    read = FloatRead("level", ())
    at = point(normal(4, 5), level=torch.tensor(2.5, dtype=torch.float64))
    assert evaluate_float(read, at).item() == 2.5
    total = torch.zeros((), dtype=torch.float64)
    add_read_gradient(total, read, at, torch.tensor(3.0, dtype=torch.float64))
    assert total.item() == 3


def test_where_takes_a_branch_for_each_pair() -> None:
    s = normal(3, 3)
    found = evaluate_float(FloatSelect(AHEAD, FloatConst(9.0), S), point(s))
    ahead = torch.ones(3, 3).triu(1).bool()
    assert torch.equal(found, torch.where(ahead, 9.0, s))


def test_the_branch_not_taken_may_be_infinite() -> None:
    """`where(q < k, 0, log(s))` at s = 0 ahead of the query: no NaN comes back."""
    s = normal(3, 3).abs()
    s[0, 2] = 0
    s.requires_grad_()
    expr = FloatSelect(AHEAD, FloatConst(0.0), call(FloatFunction.LOG, S))
    found = evaluate_float(expr, point(s))
    torch.autograd.backward(found.sum())
    assert s.grad is not None
    ahead = torch.ones(3, 3).triu(1).bool()
    torch.testing.assert_close(s.grad, torch.where(ahead, 0, 1 / s.detach()))


@pytest.mark.parametrize("function", [FloatFunction.LOG, FloatFunction.TANH])
def test_what_is_not_seen_has_the_fill_and_no_gradient(function: FloatFunction) -> None:
    s = normal(3, 3).abs()
    s[0, 1], s[0, 2] = 0, math.nan
    s.requires_grad_()
    seen = np.tril(np.ones((3, 3), dtype=np.bool_))
    found = evaluate_where(call(function, S), point(s), seen, -math.inf)
    assert (found[torch.from_numpy(~seen)] == -math.inf).all()
    lower = s.detach()[torch.from_numpy(seen)]
    expected = lower.log() if function is FloatFunction.LOG else lower.tanh()
    torch.testing.assert_close(found[torch.from_numpy(seen)], expected)
    torch.autograd.backward(found[torch.from_numpy(seen)].sum())
    assert s.grad is not None
    assert s.grad.isfinite().all()
    assert (s.grad[torch.from_numpy(~seen)] == 0).all()


def test_the_result_has_the_shape_of_the_point() -> None:
    for seen in (np.asarray(True), np.asarray(False)):
        for expr in (FloatConst(2.0), FromInt(HEAD), call(FloatFunction.LOG, S)):
            found = evaluate_where(expr, point(normal(3, 4).abs()), seen, 0.0)
            assert found.shape == (3, 4)


def test_what_may_blow_up() -> None:
    by_s = FloatBinary(FloatOp.DIV, FloatConst(1.0), S)
    by_0 = FloatBinary(FloatOp.DIV, S, FloatConst(0.0))
    by_2 = FloatBinary(FloatOp.DIV, S, FloatConst(2.0))
    inside = FloatSelect(AHEAD, S, call(FloatFunction.SQRT, S))
    assert all(may_blow_up(expr) for expr in (by_s, by_0, inside))
    assert not any(may_blow_up(expr) for expr in (S, by_2, FromInt(Const(1))))
