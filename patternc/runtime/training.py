"""A call of a package that autograd watches.

In: an attention of a package and a checked call. Out: output and LSE, with gradients
once. Not its job: their numbers (`attention`), what follows the kernels (`finish` there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from .attention import PackagedAttention


class Step(torch.autograd.Function):
    """A call that autograd watches; `wanted` are the inputs that have gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        attention: PackagedAttention,
        given: dict[str, Any],
        wanted: tuple[str, ...],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Output and LSE."""
        own = {**given, **dict(zip(wanted, inputs, strict=True))}
        output, lse = attention.attend(q, k, v, **own)
        ctx.save_for_backward(q, k, v, output, lse, *inputs)
        ctx.set_materialize_grads(False)
        ctx.told = attention, {x: given[x] for x in given if x not in wanted}, wanted
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_lse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k`, `v` and the wanted inputs."""
        attention, given, wanted = ctx.told
        q, k, v, output, lse, *inputs = ctx.saved_tensors
        own = torch.zeros_like(output) if d_out is None else d_out
        given = {**given, **dict(zip(wanted, inputs, strict=True))}
        found = attention.gradients(q, k, v, output, lse, own, d_lse, wanted, **given)
        return None, None, None, *found[:3], *(found[3][name] for name in wanted)


def needs_gradient(x: object) -> bool:
    """Whether it is a tensor whose gradient is asked for."""
    return isinstance(x, Tensor) and x.requires_grad
