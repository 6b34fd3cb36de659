"""Sums over the keys of live tiles in plain PyTorch, and the way back through them.

In: scaled queries, keys and values in the dtype to compute in, and groups of heads with
their chunks of tiles. Out: output rows, LSE, gradients. Not its job: which tiles are
live (`plan.expand`, `backends.chunks`), scores and weights of pairs
(`backends.weighing`), calls and autograd (`backends.tiled`).

Softmax runs once over all the keys that a query tile reaches, so no running maximum
is needed. The backward pass computes the weights again from the LSE, chunk by chunk,
and keeps none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from patternc.backends.chunks import SCORES_AT_ONCE, Chunk, Group
from patternc.backends.gather import (
    FloatInputs,
    Logits,
    Rows,
    add_keys,
    elements_slice,
    keys_of_group,
    own_inputs,
    put_rows,
    rows_of_group,
    stack,
    take_keys,
    take_rows,
)
from patternc.backends.sums import weighted_sum
from patternc.backends.weighing import (
    Traced,
    change_logits,
    score_gradients,
    trace_logits,
    weigh,
    weights_and_slopes,
)
from patternc.ir.nodes import WeightKind


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    groups: tuple[Group, ...],
    needs_lse: bool,
    inputs: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Output and LSE of all groups, without gradients; see `_forward`."""
    shape = (*q.shape[:3], v.shape[3])
    if not (q.numel() and k.numel()):
        lse = torch.full(q.shape[:3], -torch.inf, dtype=q.dtype, device=q.device)
        return torch.zeros(shape, dtype=q.dtype, device=q.device), lse
    logits = Logits.of(q, k, scale)
    found = [
        _forward(
            group,
            logits.of_heads(group),
            keys_of_group(v, group),
            needs_lse,
            own_inputs(inputs, group),
        )
        for group in groups
    ]
    output = _join([part for part, _ in found], groups, shape)
    return output, _join([part for _, part in found], groups, q.shape[:3])


def gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    scale: float,
    groups: tuple[Group, ...],
    inputs: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """The gradients of `q`, `k`, `v` and the floating inputs, shaped like them."""
    grad_q, grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
    )
    totals = {name: torch.zeros_like(item) for name, item in inputs.items()}
    if not (q.numel() and k.numel()):
        return grad_q, grad_k, grad_v, totals
    logits = Logits.of(q, k, scale)
    # For p a softmax of s, ds = p * (dp - shift): sum(p * dp) = sum(o * do).
    shift = (output * grad_output).sum(-1)
    if grad_lse is not None:
        shift = shift - grad_lse
    exact = logits.exact or not bool((shift.sum() + v.sum()).isfinite())
    for group in groups:
        own = [rows_of_group(x, group) for x in (lse, shift, grad_output)]
        rows = Rows(own[0], own[1], own[2], exact)
        data = FloatInputs(own_inputs(inputs, group), own_inputs(totals, group))
        part = _backward(
            group, logits.of_heads(group), keys_of_group(v, group), rows, data
        )
        elements, kv_heads = elements_slice(group), list(group.kv_heads)
        grad_q[elements, list(group.heads)] = part[0] * scale
        grad_k[elements, kv_heads] += part[1]
        grad_v[elements, kv_heads] += part[2]
    return grad_q, grad_k, grad_v, totals


def _join(
    parts: list[Tensor], groups: tuple[Group, ...], shape: tuple[int, ...]
) -> Tensor:
    """[elements, heads, ...] of each group -> [B, H, ...], the shape."""
    if len(groups) == 1:
        return parts[0]
    joined = torch.empty(shape, dtype=parts[0].dtype, device=parts[0].device)
    for group, part in zip(groups, parts, strict=True):
        joined[elements_slice(group), list(group.heads)] = part
    return joined


def _steps(group: Group, x: Tensor) -> Iterator[tuple[Chunk, slice]]:
    """Chunks, and for each the slices of X that are computed at once."""
    for chunk in group.chunks:
        block = chunk.rows.numel() * chunk.keys.shape[1] * group.share
        count = max(1, SCORES_AT_ONCE // block)
        for start in range(0, x.shape[0], count):
            yield chunk, slice(start, start + count)


def _forward(
    group: Group,
    logits: Logits,
    v: Tensor,
    needs_lse: bool,
    inputs: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """The output [elements, heads, n_q, D_v] and LSE [elements, heads, n_q] of one group.

    `v` is [X, n_k, D_v]. Without `needs_lse` the LSE is -inf throughout; that of weights
    without a sum is NaN.
    """
    q, weighing = logits.q, group.weighing
    covered = sum(chunk.rows.numel() for chunk in group.chunks) == q.shape[2]
    make = torch.empty if covered else torch.zeros
    output = make((*q.shape[:3], v.shape[2]), dtype=q.dtype, device=q.device)
    is_softmax = weighing.kind is WeightKind.SOFTMAX
    start = -torch.inf if is_softmax else torch.nan
    lse = torch.full(q.shape[:3], start, dtype=q.dtype, device=q.device)
    plain = bool(v.sum().isfinite())
    for chunk, part in _steps(group, q):
        rows = take_rows(q[part], chunk)
        keys = take_keys(logits.k[part], chunk)
        scores = logits.raw(stack(rows), keys, chunk, part)
        if weighing.score is None:
            scores = logits.hide(scores, chunk)
        else:
            scores = change_logits(scores, group, chunk, part, inputs)
        weights = weigh(scores, weighing)
        values = take_keys(v[part], chunk)
        flat = weights.view(len(values), -1, scores.shape[-1])
        if plain:
            found = torch.bmm(flat, values)
        else:
            seen = scores.view(flat.shape) != -torch.inf
            found = weighted_sum(flat, values, seen)
        found = found.view(*rows.shape[:-1], v.shape[2])
        # A score or an overflow may hide the last pair of a row, too.
        may_be_empty = chunk.may_be_empty or weighing.score is not None or logits.exact
        if is_softmax and (needs_lse or may_be_empty):
            top = scores.amax(-1)
            empty = top == -torch.inf
            found = found.masked_fill(empty.unsqueeze(-1), 0)
            # The greatest weight is 1 / sum(exp(s - top)).
            sums = (top - weights.amax(-1).log()).masked_fill(empty, -torch.inf)
            put_rows(lse, chunk, part, sums)
        put_rows(output, chunk, part, found)
    shape = (len(group.elements), len(group.heads), q.shape[2])
    return output.view(*shape, v.shape[2]), lse.view(shape)


def _backward(
    group: Group, logits: Logits, v: Tensor, rows: Rows, data: FloatInputs
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the scaled queries [elements, heads, n_q, D], keys and values.

    The weights are computed again, since exp(s - lse) needs no sum.
    """
    q = logits.q
    grad_q = torch.zeros_like(q, memory_format=torch.contiguous_format)
    grad_k, grad_v = torch.zeros_like(logits.k), torch.zeros_like(v)
    for chunk, part in _steps(group, q):
        queries = stack(take_rows(q[part], chunk))
        keys = take_keys(logits.k[part], chunk)
        values = take_keys(v[part], chunk)
        scores = logits.raw(queries, keys, chunk, part)
        traced: list[Traced] = []
        if group.weighing.score is None:
            scores = logits.hide(scores, chunk)
        else:
            traced = trace_logits(scores, group, chunk, part, data.inputs)
            scores = torch.cat([item.changed.detach() for item in traced], dim=-1)
        lse = take_rows(rows.lse[part], chunk).unsqueeze(-1)
        # An empty row has LSE -inf; 0 in its place gives exp(-inf - 0) = 0.
        lse = lse.masked_fill(lse == -torch.inf, 0)
        weights, slopes = weights_and_slopes(scores, group.weighing, lse)
        hidden = scores == -torch.inf if rows.exact else None
        if hidden is not None:
            weights = weights.masked_fill(hidden, 0)
        grad = stack(take_rows(rows.grad_output[part], chunk))
        flat = weights.view(len(keys), -1, keys.shape[1])
        turned = flat.transpose(1, 2)
        if hidden is None:
            found = torch.bmm(turned, grad)
        else:
            seen = ~hidden.view(flat.shape).transpose(1, 2)
            found = weighted_sum(turned, grad, seen)
        add_keys(grad_v, chunk, part, found)
        grad_scores = torch.bmm(grad, values.transpose(1, 2))
        if group.weighing.kind is WeightKind.SOFTMAX:
            shift = take_rows(rows.shift[part], chunk).reshape(len(keys), -1, 1)
            grad_scores.sub_(shift)
        grad_scores.mul_(slopes.view(flat.shape))
        if hidden is not None:
            none = (hidden | (slopes == 0)).view(flat.shape)
            grad_scores.masked_fill_(none, 0)
        if traced:
            changed = grad_scores.view(scores.shape)
            changed = score_gradients(traced, changed, data.totals)
            grad_scores = changed.reshape(flat.shape)
            if hidden is not None:
                grad_scores = grad_scores.masked_fill(hidden.view(flat.shape), 0)
        add_keys(grad_k, chunk, part, torch.bmm(grad_scores.transpose(1, 2), queries))
        found = torch.bmm(grad_scores, keys)
        tiles, count = chunk.rows.shape
        found = found.view(-1, tiles, group.share, count, q.shape[3])
        put_rows(grad_q, chunk, part, found)
    batch = len(group.elements)
    return (
        grad_q.view(batch, len(group.heads), *q.shape[2:]),
        grad_k.view(batch, len(group.kv_heads), *grad_k.shape[1:]),
        grad_v.view(batch, len(group.kv_heads), *v.shape[1:]),
    )
