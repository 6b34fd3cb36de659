"""The dense definition of an attention, in plain PyTorch.

In: a kernel, of which only the attention counts, and tensors. Out: what every other
backend must give. Not its job: speed or memory: it holds n_q x n_k scores for every
head. It reads no tile schedule and no order, so a mistake in one shows against it.

float64 is computed in float64 and float32 in float32. 16-bit inputs are computed in
float32, and the output is rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, assert_never

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patternc.backends.floats import evaluate_where
from patternc.backends.inputs import ElementInputs, element_inputs, elements_of
from patternc.backends.protocol import NO_INPUTS
from patternc.backends.rows import (
    Invocation,
    change_outputs,
    sink_logits,
    unnormalised_heads,
    with_heads,
)
from patternc.backends.sequences import Sequences, by_sequence
from patternc.backends.sums import weighted_sum
from patternc.diagnostics import Diagnostic
from patternc.ir.evaluate import Tables, dense_mask
from patternc.ir.nodes import (
    Attention,
    Axis,
    Given,
    GivenValue,
    WeightCase,
    WeightKind,
)
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
    """A `Plain` attention that computes every pair."""

    is_plain: ClassVar[bool] = True

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
        inputs: Mapping[str, Tensor] = NO_INPUTS,
        sequences: Sequences | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See `LoadedAttention`."""
        if sequences is not None:
            output, lse = by_sequence(
                partial(self, scale=scale, q_offset=0, params=params, return_lse=True),
                sequences,
                (q, k, v),
            )
            return (output, lse) if return_lse else output
        with torch.autocast(q.device.type, enabled=False):
            wide = working_dtype(q.dtype)
            call = Invocation(self.attention, scale, q_offset, k.shape[2], params)
            output, lse = attend(call, q.to(wide), k.to(wide), v.to(wide), inputs)
        return (output.to(q.dtype), lse) if return_lse else output.to(q.dtype)


def attend(
    call: Invocation, q: Tensor, k: Tensor, v: Tensor, inputs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The output [B, H, n_q, D_v] and LSE [B, H, n_q] of a call.

    Everything is computed in the dtype of the tensors. The LSE of heads whose weights
    are not normalised is NaN.
    """
    found = []
    for elements in elements_of(inputs, inputs, q.shape[0]):
        own = element_inputs(inputs, elements.start)
        part = slice(elements.start, elements.stop)
        found.append(_attend_element(call, q[part], k[part], v[part], own))
    outputs, lses = zip(*found, strict=True)
    output = change_outputs(call, q, v, torch.cat(outputs), inputs)
    skipped = torch.zeros_like(output[:, list(call.attention.skipped)])
    return with_heads(output, call.attention.skipped, skipped), torch.cat(lses)


def _attend_element(
    call: Invocation, q: Tensor, k: Tensor, v: Tensor, inputs: ElementInputs
) -> tuple[Tensor, Tensor]:
    """Output, before any change, and LSE of batch elements that see the same inputs."""
    attention = call.attention
    visible = mask_tensor(
        attention,
        q.shape[2],
        call.n_k,
        call.q_offset,
        call.params,
        q.device,
        inputs.tables,
    )
    keys, values = (x.repeat_interleave(attention.group_size, dim=1) for x in (k, v))
    logits = _logits(q, keys, call.scale)
    for score in attention.scores:
        heads = list(score.heads)
        at = call.point(heads, q, inputs, {GivenValue(Given.SCORE): logits[:, heads]})
        at = at.with_axis(Axis.KEY, np.arange(call.n_k, dtype=np.int64))
        seen = visible[heads].cpu().numpy()
        scored = evaluate_where(score.score, at, seen, -torch.inf)
        logits = with_heads(logits, heads, scored)
    sinks = sink_logits(call, q, inputs)
    # The rows of weights without a sum are replaced below; no 0 * NaN comes back here.
    others = list(unnormalised_heads(attention))
    known = with_heads(values, others, torch.zeros_like(values[:, others]))
    output, lse = _softmax(logits, known, visible, sinks)
    for weights in attention.weights:
        if weights.kind is WeightKind.SOFTMAX:
            continue
        heads = list(weights.heads)
        summed = _unnormalised(
            weights, logits[:, heads], values[:, heads], visible[heads]
        )
        output = with_heads(output, heads, summed)
        lse = with_heads(lse, heads, torch.full_like(lse[:, heads], torch.nan))
    skipped = torch.full_like(lse[:, list(attention.skipped)], -torch.inf)
    return output, with_heads(lse, attention.skipped, skipped)


def _logits(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """`s` of every pair, [B, H, n_q, n_k]."""
    (queries, no_query), (keys, no_key) = split_finite(q), split_finite(k)
    logits = queries @ keys.transpose(-1, -2) * scale
    if no_query is None and no_key is None:
        return logits
    with torch.no_grad():
        addend = q @ k.transpose(-1, -2) * scale
        if no_query is None:
            assert no_key is not None
            spoiled = no_key.unsqueeze(-2)
        else:
            spoiled = no_query.unsqueeze(-1)
            spoiled = spoiled if no_key is None else spoiled | no_key.unsqueeze(-2)
        addend = addend.masked_fill_(~spoiled, 0)
    return logits + addend


def _softmax(
    logits: Tensor, v: Tensor, visible: Tensor, sinks: Tensor
) -> tuple[Tensor, Tensor]:
    """Output and LSE; a sink [H, n_q] is one more logit, which has no value.

    `visible` is bool [H, n_q, n_k]. A row without keys gives 0 and its sink.
    """
    hidden = logits.masked_fill(~visible, -torch.inf)
    every = torch.cat([hidden, sinks.expand(hidden.shape[:3]).unsqueeze(-1)], dim=-1)
    top = every.detach().amax(-1)
    empty = top == -torch.inf
    top = top.masked_fill(empty, 0)
    weights = torch.exp(every - top.unsqueeze(-1))
    total = weights.sum(-1).masked_fill(empty, 1)  # so that no 0/0 enters a gradient
    shares = weights[..., :-1] / total.unsqueeze(-1)
    lse = (top + total.log()).masked_fill(empty, -torch.inf)
    seen = hidden != -torch.inf
    return _summed(shares, v, seen), lse


def _unnormalised(
    weights: WeightCase, logits: Tensor, v: Tensor, visible: Tensor
) -> Tensor:
    """The output of heads whose weights are no softmax: their plain sum."""
    known = torch.where(visible, logits, 0)
    match weights.kind:
        case WeightKind.RELU2:
            factors = (weights.argument * known).relu().square()
        case WeightKind.SIGMOID:
            factors = (known + weights.argument).sigmoid()
        case WeightKind.SOFTMAX:
            raise ValueError("softmax weights are normalised")
        case _:
            assert_never(weights.kind)
    seen = visible & (logits != -torch.inf)
    return _summed(factors.masked_fill(~visible, 0), v, seen)


def _summed(weights: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """`weighted_sum` with gradients."""
    found: Tensor = _WeightedSum.apply(weights, values, seen)  # type: ignore[no-untyped-call]
    return found


class _WeightedSum(torch.autograd.Function):
    """`weighted_sum`, and its gradients, where nothing hidden comes in either."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        ctx.save_for_backward(weights, values, seen)
        return weighted_sum(weights, values, seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, values, seen = ctx.saved_tensors
        d_weights = (d_total @ values.transpose(-1, -2)).masked_fill(~seen, 0)
        known = weights.masked_fill(~seen, 0).transpose(-1, -2)
        return d_weights, weighted_sum(known, d_total, seen.transpose(-1, -2)), None


def split_finite(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows with 0 for what is not finite, and which rows were not.

    `x` is [..., n, D]; the second is bool [..., n], or None if all are finite. Of such
    queries and keys nothing comes into the gradient of a row that does not see them.
    """
    finite = x.isfinite()
    if bool(finite.all()):
        return x, None
    cleaned: Tensor = _Cleaned.apply(x, finite)  # type: ignore[no-untyped-call]
    return cleaned, ~finite.all(-1)


class _Cleaned(torch.autograd.Function):
    """0 in the place of what is not finite, whose gradient is what came for the 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, finite: Tensor) -> Tensor:
        return torch.where(finite, x, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


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
    tables: Tables | None = None,
) -> Tensor:
    """The visible pairs of all heads, bool [H, n_q, n_k], of one batch element.

    `tables` are its inputs, without a batch axis, as `ir.evaluate` reads them.
    """
    visible = np.empty((attention.heads, n_q, n_k), dtype=np.bool_)
    for case in attention.cases:
        # One mask for all heads of the case, unless it reads `h`.
        alone = Axis.HEAD in axes_of(case.mask)
        for heads in [[head] for head in case.heads] if alone else [[*case.heads]]:
            mask = dense_mask(case.mask, heads[0], n_q, n_k, q_offset, params, tables)
            visible[heads] = mask
    return torch.from_numpy(visible).to(device)
