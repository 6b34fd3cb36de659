"""The dense definition of an attention, in plain PyTorch.

In: a kernel, of which only the attention's masks count, and tensors. Out: what every
other backend must give. Not its job: speed or memory: it holds n_q x n_k scores for
every head. It reads no tile schedule, so a mistake in one shows against it.

float64 is computed in float64 and float32 in float32. 16-bit inputs are computed in
float32, and the output is rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from patternc.diagnostics import Diagnostic
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention, Axis
from patternc.ir.walk import axes_of
from patternc.plan.kernel import Kernel


@dataclass(frozen=True, slots=True)
class ReferenceBackend:
    """One dense softmax per row, on any device, with autograd."""

    name: ClassVar[str] = "reference"

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """None: the definition covers every program."""
        return None

    def load(self, kernel: Kernel) -> ReferenceAttention:
        """The definition of the kernel's attention; its schedule is not read."""
        return ReferenceAttention(kernel.attention)


@dataclass(frozen=True, slots=True)
class ReferenceAttention:
    """A `LoadedAttention` that computes every pair."""

    attention: Attention

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        return_lse: bool,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See `LoadedAttention`."""
        visible = mask_tensor(
            self.attention, q.shape[2], k.shape[2], q_offset, params, q.device
        )
        with torch.autocast(q.device.type, enabled=False):
            wide = working_dtype(q.dtype)
            share = self.attention.group_size
            keys = k.to(wide).repeat_interleave(share, dim=1)
            values = v.to(wide).repeat_interleave(share, dim=1)
            output, lse = attend(q.to(wide), keys, values, visible, scale)
        return (output.to(q.dtype), lse) if return_lse else output.to(q.dtype)


def attend(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The output [B, H, n_q, D] and LSE [B, H, n_q] of dense masked attention.

    `q`, `k` and `v` have H heads each; `visible` is bool [H, n_q, n_k]. Everything is
    computed in the tensors' dtype. A row without keys gives 0 and -inf.
    """
    keys, poison = split_finite(k)
    scores = q @ keys.transpose(-1, -2) * scale
    if poison is not None:
        scores = scores + poison.unsqueeze(-2)
    scores = scores.masked_fill(~visible, -torch.inf)
    empty = ~visible.any(-1)
    if k.shape[2] == 0:  # a row of no scores has no greatest one
        return scores @ v, scores.sum(-1) - torch.inf
    top = scores.detach().amax(-1).masked_fill(empty, 0)
    weights = torch.exp(scores - top.unsqueeze(-1))
    total = weights.sum(-1).masked_fill(empty, 1)  # so that no 0/0 enters a gradient
    output = weighted_sum(weights / total.unsqueeze(-1), v)
    return output, (top + total.log()).masked_fill(empty, -torch.inf)


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """`weights @ values`, but a weight of 0 keeps out even a NaN or an infinity.

    [..., n, m] @ [..., m, D]. A plain product would give 0 * NaN = NaN, and so spread
    what stands at an invisible key to all rows.
    """
    if bool(values.sum().isfinite()):  # else one is not finite, or the sum overflowed
        return weights @ values
    seen = (weights != 0).to(values.dtype)
    total = weights @ torch.where(values.isfinite(), values, 0)
    for special, present in (
        (torch.inf, values == torch.inf),
        (-torch.inf, values == -torch.inf),
        (torch.nan, values.isnan()),
    ):
        reached = seen @ present.to(values.dtype) > 0
        total = total + torch.zeros_like(total).masked_fill(reached, special)
    return total


def split_finite(keys: Tensor) -> tuple[Tensor, Tensor | None]:
    """The keys with 0 for what is not finite, and what to add to each key's scores.

    `keys` is [..., n_k, D]; the addend is [..., n_k], NaN at a key that was not finite
    and 0 elsewhere, or None if all are finite. Rows that do not see such a key then
    have finite gradients.
    """
    finite = keys.isfinite()
    if bool(finite.all()):
        return keys, None
    poison = torch.zeros_like(keys[..., 0]).masked_fill(~finite.all(-1), torch.nan)
    return torch.where(finite, keys, 0), poison


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float64 stays, every other becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def mask_tensor(
    attention: Attention,
    n_q: int,
    n_k: int,
    q_offset: int,
    params: Mapping[str, int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """The visible pairs of all heads, bool [H, n_q, n_k]."""
    visible = np.empty((attention.heads, n_q, n_k), dtype=np.bool_)
    for case in attention.cases:
        # One mask for all heads of the case, unless it reads `h`.
        alone = Axis.HEAD in axes_of(case.mask)
        for heads in [[head] for head in case.heads] if alone else [[*case.heads]]:
            mask = dense_mask(case.mask, heads[0], n_q, n_k, q_offset, params)
            visible[heads] = mask
    return torch.from_numpy(visible).to(device)
