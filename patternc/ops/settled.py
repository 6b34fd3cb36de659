"""Tensors as an operator may return them.

In: a tensor that some backend made. Out: the same numbers with the strides of a new
tensor, which a graph without values is told. Not its job: what was computed.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def settled(x: Tensor) -> Tensor:
    """The same with the strides of a new tensor, whatever sizes of 1 may hide."""
    fresh = x.detach() if x.requires_grad else x
    is_dense = fresh.stride() == _strides(fresh.shape)
    return fresh if is_dense else fresh.new_empty(fresh.shape).copy_(fresh)


@lru_cache(maxsize=1024)
def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Those of a new tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size or 1
    return tuple(reversed(strides))
