"""Derivatives of random expressions are those of PyTorch's autograd."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from patternc.backends.floats import FloatPoint, evaluate_float
from patternc.ir.derive import ZERO, derive
from patternc.ir.evaluate import Ints, Point
from patternc.ir.floats import float_reads
from patternc.ir.nodes import (
    HEAD,
    KEY,
    Axis,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatOp,
    FloatRead,
    GivenValue,
)
from tests.float_strategies import PAIRS, S, scores

N = 7
GENERATOR = torch.Generator().manual_seed(3)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


INPUTS = {
    "slope": normal(2),
    "bias": normal(N),
    "pair": normal(PAIRS, PAIRS),
    "gate": normal(N, 2),
    "level": normal(),
}
LOGITS = normal(N, N)


def at(s: torch.Tensor) -> FloatPoint:
    """All pairs of head 1."""
    axes: dict[Axis, int | Ints] = {
        Axis.QUERY: np.arange(N)[:, None],
        Axis.KEY: np.arange(N)[None, :],
        Axis.HEAD: np.asarray(1),
        Axis.LENGTH: N,
    }
    return FloatPoint(Point(axes), {S: s}, INPUTS, torch.float64, s.device)


def check(expr: FloatExpr, s: torch.Tensor) -> None:
    """Every derivative at every pair, each read an independent value."""
    point = at(s)
    values: tuple[GivenValue | FloatRead, ...] = (S, *float_reads(expr))
    known: dict[FloatExpr, torch.Tensor] = {
        by: evaluate_float(by, point).expand(N, N).clone().requires_grad_()
        for by in values
    }
    value = evaluate_float(expr, point.knowing(known)).expand(N, N)
    gradients = torch.autograd.grad(
        value.sum(), list(known.values()), allow_unused=True
    )
    plain = {by: x.detach() for by, x in known.items()}
    for by, true in zip(values, gradients, strict=True):
        mine = evaluate_float(derive(expr, by), point.knowing(plain)).expand(N, N)
        wanted = torch.zeros(N, N, dtype=torch.float64) if true is None else true
        torch.testing.assert_close(mine, wanted)


@given(scores())
def test_derivatives_are_those_of_autograd(expr: FloatExpr) -> None:
    check(expr, LOGITS)


KINKS = st.sampled_from(
    (
        FloatCall(FloatFunction.ABS, S),
        FloatCall(FloatFunction.RELU, S),
        FloatBinary(FloatOp.MIN, S, FloatConst(0.0)),
        FloatBinary(FloatOp.MAX, FloatConst(0.0), S),
        FloatBinary(FloatOp.MAX, S, S),
    )
)


@given(KINKS)
def test_kinks_are_those_of_autograd(expr: FloatExpr) -> None:
    check(expr, torch.zeros(N, N, dtype=torch.float64))


def test_an_element_that_is_not_read_has_no_derivative() -> None:
    assert derive(S, FloatRead("slope", (HEAD,))) == ZERO
    assert derive(FloatRead("bias", (KEY,)), FloatRead("slope", (HEAD,))) == ZERO
