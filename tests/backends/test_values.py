"""Expressions on tensors, where the tests of selection do not reach."""

from __future__ import annotations

import math

import torch

from patternc.backends.values import Place, numbers_at
from patternc.ir.nodes import KEY, Axis, Binary, Const, FloatRead, IntOp


def test_what_lies_outside_of_an_input_is_zero_beside_a_nan() -> None:
    read = FloatRead("x", (Binary(IntOp.SUB, KEY, Const(1)),))
    x = torch.tensor([[math.nan, 2.0, math.inf]])
    axes = {Axis.KEY: torch.arange(5)[None]}
    found = numbers_at(read, Place(axes, {}, {"x": x}, torch.zeros(1, 1).long()))
    expected = torch.tensor([[0.0, math.nan, 2.0, math.inf, 0.0]])
    torch.testing.assert_close(found, expected, equal_nan=True)
