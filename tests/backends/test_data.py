"""Inputs, scores, weights, sinks, outputs, skipped heads and orders, tiled and dense.

The reference is held to loops over rows and to finite differences, the tiled backend to
the reference, gradients of every floating input included.
"""

from __future__ import annotations

import math

import torch
from hypothesis import given
from torch import Tensor

from patternc.backends.protocol import Backend
from patternc.backends.reference import ReferenceBackend
from patternc.backends.tiled import TiledBackend
from patternc.ir.nodes import WeightKind
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from tests.float_strategies import BATCH, DataCall, data_calls
from tests.strategies import schedules

TOLERANCE = 1e-9


def results(backend: Backend, kernel: Kernel, call: DataCall) -> list[Tensor]:
    """Output, LSE of the softmax heads, gradients of all that is not an integer."""
    n, attention = call.length, kernel.attention
    generator = torch.Generator().manual_seed(n)
    q, k, v = (
        torch.randn(BATCH, heads, n, 4, generator=generator, dtype=torch.float64)
        for heads in (attention.heads, attention.kv_heads, attention.kv_heads)
    )
    inputs = {name: item.clone() for name, item in call.inputs.items()}
    leaves = [q, k, v, *(x for x in inputs.values() if x.is_floating_point())]
    for leaf in leaves:
        leaf.requires_grad_()
    output, lse = backend.load(kernel)(
        q, k, v, scale=0.5, q_offset=0, params={}, return_lse=True, inputs=inputs
    )
    kinds = {head: case.kind for case in attention.weights for head in case.heads}
    normalised = [
        head
        for head in range(attention.heads)
        if kinds.get(head, WeightKind.SOFTMAX) is WeightKind.SOFTMAX
    ]
    lse = lse[:, normalised]
    loss = (output * torch.arange(4.0)).sum() + lse[lse > -math.inf].sin().sum()
    torch.autograd.backward(loss)
    # What an attention does not read may have no gradient, or one of 0.
    zero = (
        torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves
    )
    return [output, lse, *zero]


def assert_agrees(call: DataCall, schedule: Schedule) -> None:
    kernel = plan(call.attention, schedule)
    found = results(TiledBackend(), kernel, call)
    expected = results(ReferenceBackend(), kernel, call)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@given(data_calls(), schedules)
def test_random_calls_with_data_are_the_reference(
    call: DataCall, schedule: Schedule
) -> None:
    assert_agrees(call, schedule)
