"""The tile schedule in plain PyTorch: live tiles only, any device, with autograd.

In: a planned kernel and tensors. Out: what the reference gives, at a cost in time and
memory that follows the live tiles. Not its job: finding the tiles (`plan.expand`) and
grouping them (`backends.chunks`), scores and weights of pairs (`backends.weighing`),
output rows (`backends.rows`).

Softmax runs once over all the keys that a query tile reaches, so no running maximum
is needed. The backward pass computes the weights again from the LSE, chunk by chunk,
and keeps none of them. A sink joins afterwards: all that it needs is the LSE. float64
is computed in float64, everything else in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patternc.backends.chunks import (
    SCORES_AT_ONCE,
    Call,
    Chunk,
    ChunkCache,
    Group,
    digests_of,
)
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
from patternc.backends.inputs import element_inputs
from patternc.backends.protocol import NO_INPUTS
from patternc.backends.reference import weighted_sum, working_dtype
from patternc.backends.rows import Invocation, finish_rows
from patternc.backends.sequences import Sequences, by_sequence
from patternc.backends.weighing import (
    Traced,
    change_logits,
    score_gradients,
    trace_logits,
    weigh,
    weights_and_slopes,
)
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import WeightKind
from patternc.plan.kernel import Kernel


@dataclass(frozen=True, slots=True)
class TiledBackend:
    """Live tiles only, in plain PyTorch; the default without a GPU."""

    name: ClassVar[str] = "tiled"

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """None: every kernel has a tile schedule."""
        return None

    def load(self, kernel: Kernel) -> TiledAttention:
        """The kernel's covers, ready to run."""
        return TiledAttention(kernel)


@dataclass(frozen=True, slots=True)
class TiledAttention:
    """A `Trainable` attention over the covers of a kernel."""

    kernel: Kernel
    cache: ChunkCache = field(default_factory=ChunkCache, compare=False, repr=False)

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
        wide = working_dtype(q.dtype)
        tensors = (q.to(wide), k.to(wide), v.to(wide))
        floats = _floats(inputs, wide)
        groups = self._groups(q, k, q_offset, params, inputs)
        attention = self.kernel.attention
        needs_lse = return_lse or bool(attention.sinks)
        if torch.is_grad_enabled():
            needs_lse |= any(x.requires_grad for x in (*tensors, *floats.values()))
        with torch.autocast(q.device.type, enabled=False):
            output, lse = _Tiled.apply(  # type: ignore[no-untyped-call]
                *tensors, scale, groups, needs_lse, tuple(floats), *floats.values()
            )
            call = Invocation(attention, scale, q_offset, k.shape[2], params)
            known = {**inputs, **floats}
            output, lse = finish_rows(call, output, lse, tensors[2], known)
        return (output.to(q.dtype), lse) if return_lse else output.to(q.dtype)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
    ) -> tuple[Tensor, Tensor]:
        """See `Trainable`; the output has the dtype that was computed in."""
        wide = working_dtype(q.dtype)
        groups = self._groups(q, k, q_offset, params, inputs)
        with torch.autocast(q.device.type, enabled=False):
            tensors = (q.to(wide), k.to(wide), v.to(wide))
            return _attend(*tensors, scale, groups, True, _floats(inputs, wide))

    def finish(
        self,
        out: Tensor,
        lse: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
    ) -> tuple[Tensor, Tensor]:
        """See `Trainable`."""
        attention = self.kernel.attention
        call = Invocation(attention, 1.0, q_offset, v.shape[2], params)
        with torch.autocast(out.device.type, enabled=False):
            return finish_rows(call, out, lse, v.to(out.dtype), inputs)

    def gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        d_out: Tensor,
        d_lse: Tensor | None,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
        wanted: Collection[str] = (),
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """See `Trainable`."""
        wide = working_dtype(q.dtype)
        groups = self._groups(q, k, q_offset, params, inputs)
        floats = _floats(inputs, wide)
        with torch.autocast(q.device.type, enabled=False):
            *found, totals = _gradients(
                q.to(wide),
                k.to(wide),
                v.to(wide),
                out.to(wide),
                lse.to(wide),
                d_out.to(wide),
                None if d_lse is None else d_lse.to(wide),
                scale,
                groups,
                floats,
            )
        d_q, d_k, d_v = (x.to(q.dtype) for x in found)
        own = {name: totals[name].to(inputs[name].dtype) for name in wanted}
        return d_q, d_k, d_v, own

    def refuse_gradients(self, wanted: Collection[str]) -> Diagnostic | None:
        """None: every program has gradients."""
        return None

    def _groups(
        self,
        q: Tensor,
        k: Tensor,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor],
    ) -> tuple[Group, ...]:
        batched = frozenset(n for n, item in inputs.items() if item.shape[0] != 1)
        count = max(1, q.shape[0]) if batched else 1
        tables = [element_inputs(inputs, at).tables for at in range(count)]
        call = Call(
            q.shape[0],
            q.shape[2],
            k.shape[2],
            q_offset,
            tuple(sorted(params.items())),
            q.device,
            batched,
            digests_of(tables),
            sum(table.nbytes for own in tables for table in own.values()),
        )
        return self.cache.groups(self.kernel, call, tables)


class _Tiled(torch.autograd.Function):
    """Output and LSE of all groups of heads; both are differentiable, once."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        groups: tuple[Group, ...],
        needs_lse: bool,
        names: tuple[str, ...],
        *floats: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`q` [B, H, n_q, D], `k` [B, KV, n_k, D], `v` [B, KV, n_k, D_v] -> output
        [B, H, n_q, D_v] and LSE [B, H, n_q].

        `floats` are the floating inputs of those names, with a batch axis.
        """
        inputs = dict(zip(names, floats, strict=True))
        output, lse = _attend(q, k, v, scale, groups, needs_lse, inputs)
        ctx.save_for_backward(q, k, v, output, lse, *floats)
        ctx.scale, ctx.groups, ctx.names = scale, groups, names
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: Tensor, grad_lse: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k`, `v` and the floating inputs, shaped like them."""
        q, k, v, output, lse, *floats = ctx.saved_tensors
        inputs = dict(zip(ctx.names, floats, strict=True))
        *found, totals = _gradients(
            q, k, v, output, lse, grad_output, grad_lse, ctx.scale, ctx.groups, inputs
        )
        return *found, None, None, None, None, *totals.values()


def _floats(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The floating inputs, in the dtype to compute in."""
    return {
        name: item.to(dtype)
        for name, item in inputs.items()
        if item.dtype.is_floating_point
    }


def _attend(
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


def _gradients(
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
