"""Operations on the numbers of maps.

In: tensors of numbers. Out: tensors of numbers. Not its job: which entries are live
(`backends.maps`).
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from patternc.ir.selection import MapFunction, MapOp


def operation_of(op: MapOp, lhs: Tensor, rhs: Tensor) -> Tensor:
    """An operation on numbers."""
    match op:
        case MapOp.ADD:
            return lhs + rhs
        case MapOp.SUB:
            return lhs - rhs
        case MapOp.MUL:
            return lhs * rhs
        case MapOp.DIV:
            return lhs / rhs
        case MapOp.FLOORDIV:
            return torch.floor(lhs / rhs)
        case MapOp.MIN:
            return torch.minimum(lhs, rhs)
        case MapOp.MAX:
            return torch.maximum(lhs, rhs)
        case _:
            assert_never(op)


def function_of(function: MapFunction, x: Tensor) -> Tensor:
    """A function of every number."""
    match function:
        case MapFunction.NEGATE:
            return -x
        case MapFunction.ABS:
            return x.abs()
        case MapFunction.EXP:
            return x.exp()
        case MapFunction.LOG:
            return x.log()
        case MapFunction.SQRT:
            return x.sqrt()
        case MapFunction.TANH:
            return x.tanh()
        case MapFunction.SIGMOID:
            return x.sigmoid()
        case MapFunction.RELU:
            return x.relu()
        case _:
            assert_never(function)
