"""The tile schedule in plain PyTorch: live tiles only, any device, with autograd.

In: a planned kernel and tensors. Out: what the reference gives, at a cost in time and
memory that follows the live tiles. Not its job: finding the tiles (`plan.expand`) and
grouping them (`backends.chunks`).

Softmax runs once over all the keys that a query tile reaches, so no running maximum
is needed. The backward pass computes the weights again from the LSE, chunk by chunk,
and keeps none of them. float64 is computed in float64, everything else in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patternc.backends.chunks import SCORES_AT_ONCE, Call, Chunk, ChunkCache, Group
from patternc.backends.reference import split_finite, weighted_sum, working_dtype
from patternc.diagnostics import Diagnostic
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
    """A `LoadedAttention` over the covers of a kernel."""

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
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See `LoadedAttention`."""
        names = tuple(sorted(params.items()))
        call = Call(q.shape[0], q.shape[2], k.shape[2], q_offset, names, q.device)
        groups = self.cache.groups(self.kernel, call)
        wide = working_dtype(q.dtype)
        inputs = (q.to(wide), k.to(wide), v.to(wide))
        needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        with torch.autocast(q.device.type, enabled=False):
            output, lse = _Tiled.apply(  # type: ignore[no-untyped-call]
                *inputs, scale, groups, return_lse or needs_grad
            )
        return (output.to(q.dtype), lse) if return_lse else output.to(q.dtype)


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
    ) -> tuple[Tensor, Tensor]:
        """`q` [B, H, n_q, D]; `k`, `v` [B, KV, n_k, D] -> like `q`, and [B, H, n_q]."""
        if q.numel() and k.numel():
            logits = _Logits.of(q, k, scale)
            found = [
                _forward(group, logits.of_heads(group), _kv(v, group), needs_lse)
                for group in groups
            ]
            output, lse = (_join(parts, groups) for parts in zip(*found, strict=True))
        else:
            output = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
            lse = torch.full(q.shape[:3], -torch.inf, dtype=q.dtype, device=q.device)
        ctx.save_for_backward(q, k, v, output, lse)
        ctx.scale, ctx.groups = scale, groups
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: Tensor, grad_lse: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k` and `v`, shaped like them."""
        q, k, v, output, lse = ctx.saved_tensors
        grad_q, grad_k, grad_v = (
            torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
        )
        if q.numel() and k.numel():
            logits = _Logits.of(q, k, ctx.scale)
            values = split_finite(v)[0]
            # For p a softmax of s, ds = p * (dp - shift): sum(p * dp) = sum(o * do).
            shift = (output * grad_output).sum(-1) - grad_lse
            for group in ctx.groups:
                rows = _Rows(*(_qh(x, group) for x in (lse, shift, grad_output)))
                part = _backward(
                    group, logits.of_heads(group), _kv(values, group), rows
                )
                grad_q[:, list(group.heads)] = part[0] * ctx.scale
                grad_k[:, list(group.kv_heads)] += part[1]
                grad_v[:, list(group.kv_heads)] += part[2]
        return grad_q, grad_k, grad_v, None, None, None


def _qh(x: Tensor, group: Group) -> Tensor:
    """[B, H, n_q, ...] -> [X, share, n_q, ...], X batch entries times kv heads."""
    taken = x if len(group.heads) == x.shape[1] else x[:, list(group.heads)]
    return taken.reshape(-1, group.share, *x.shape[2:])


def _kv(x: Tensor, group: Group) -> Tensor:
    """[B, KV, n_k, ...] -> [X, n_k, ...]."""
    taken = x if len(group.kv_heads) == x.shape[1] else x[:, list(group.kv_heads)]
    return taken.reshape(-1, *x.shape[2:])


def _join(parts: Sequence[Tensor], groups: tuple[Group, ...]) -> Tensor:
    """[B, heads of the group, ...] of each group -> [B, H, ...], heads in order."""
    if len(groups) == 1:
        return parts[0]
    heads = [head for group in groups for head in group.heads]
    order = torch.tensor(heads, device=parts[0].device).argsort()
    return torch.cat(list(parts), dim=1).index_select(1, order)


@dataclass(frozen=True, slots=True)
class _Logits:
    """What the scores are computed from: scaled queries and keys.

    `poison` is added to the scores of each key, if there is any. `exact` says that a
    score may overflow or be NaN; then the mask must replace scores, where otherwise it
    is enough to add -inf to them, which a CPU does ten times faster.
    """

    q: Tensor
    k: Tensor
    poison: Tensor | None
    exact: bool

    @staticmethod
    def of(q: Tensor, k: Tensor, scale: float) -> _Logits:
        """Scale the queries; look once at how large the scores can become."""
        scaled = q * scale
        bound = _greatest(scaled) * _greatest(k) * q.shape[3]
        exact = not bound < torch.finfo(q.dtype).max  # so also if it is NaN
        keys, poison = split_finite(k) if exact else (k, None)
        return _Logits(scaled, keys, poison, exact)

    def of_heads(self, group: Group) -> _Logits:
        """The heads of a group: `q` [X, share, n_q, D], `k` [X, n_k, D]."""
        poison = None if self.poison is None else _kv(self.poison, group)
        return _Logits(_qh(self.q, group), _kv(self.k, group), poison, self.exact)

    def scores(self, q: Tensor, k: Tensor, chunk: Chunk, part: slice) -> Tensor:
        """Masked scores [X, T, share, R, C].

        `q` is [X*T, share*R, D], `k` is [X*T, C, D]; `part` are their places in X.
        """
        tiles, rows = chunk.rows.shape
        scores = torch.bmm(q, k.transpose(1, 2))
        scores = scores.view(-1, tiles, q.shape[1] // rows, rows, k.shape[1])
        if self.poison is not None:
            poison = _take_keys(self.poison[part, :, None], chunk)
            scores += poison.view(-1, tiles, 1, 1, k.shape[1])
        for run, visible in zip(chunk.runs, chunk.visibility(), strict=True):
            place = scores[..., run.start : run.stop]
            visible = visible.unsqueeze(1)
            if self.exact:
                place.masked_fill_(~visible, -torch.inf)
            else:
                place -= visible.to(q.dtype).reciprocal_().sub_(1)  # 0, or inf
        return scores


def _greatest(x: Tensor) -> float:
    """The greatest magnitude in `x`; NaN if there is one."""
    least, most = torch.aminmax(x)
    return float(torch.maximum(-least, most))


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the backward pass reads for each row: [X, share, n_q], the last one with D."""

    lse: Tensor
    shift: Tensor
    grad_output: Tensor


def _take_rows(x: Tensor, chunk: Chunk) -> Tensor:
    """[X, share, n_q, ...] -> [X, T, share, R, ...], a view where that can be."""
    tiles, rows = chunk.rows.shape
    if chunk.first_row is None:
        taken = x.index_select(2, chunk.rows.flatten())
    else:
        taken = x.narrow(2, chunk.first_row, tiles * rows)
    split = taken.view(*taken.shape[:2], tiles, rows, *taken.shape[3:])
    return split.transpose(1, 2)


def _put_rows(x: Tensor, chunk: Chunk, part: slice, rows: Tensor) -> None:
    """Store rows [X, T, share, R, ...] in their places in x [X, share, n_q, ...]."""
    flat = rows.transpose(1, 2).flatten(2, 3)
    if chunk.first_row is None:
        x[part].index_copy_(2, chunk.rows.flatten(), flat)
    else:
        x[part].narrow(2, chunk.first_row, flat.shape[2]).copy_(flat)


def _take_keys(x: Tensor, chunk: Chunk) -> Tensor:
    """[X, n_k, D] -> [X*T, C, D], a view where that can be."""
    if chunk.first_key is not None and len(chunk.keys) == 1:
        return x.narrow(1, chunk.first_key, chunk.keys.shape[1])
    taken = x.index_select(1, chunk.keys.flatten())
    return taken.view(-1, chunk.keys.shape[1], x.shape[2])


def _add_keys(x: Tensor, chunk: Chunk, part: slice, keys: Tensor) -> None:
    """Add [X*T, C, D] at the keys' places in x [X, n_k, D]."""
    if chunk.first_key is not None and len(chunk.keys) == 1:
        x[part].narrow(1, chunk.first_key, chunk.keys.shape[1]).add_(keys)
    else:
        flat = keys.reshape(-1, chunk.keys.numel(), x.shape[2])
        x[part].index_add_(1, chunk.keys.flatten(), flat)


def _steps(group: Group, x: Tensor) -> Iterator[tuple[Chunk, slice]]:
    """Chunks, and for each the slices of X that are computed at once."""
    for chunk in group.chunks:
        block = chunk.rows.numel() * chunk.keys.shape[1] * group.share
        count = max(1, SCORES_AT_ONCE // block)
        for start in range(0, x.shape[0], count):
            yield chunk, slice(start, start + count)


def _forward(
    group: Group, logits: _Logits, v: Tensor, needs_lse: bool
) -> tuple[Tensor, Tensor]:
    """The output [B, heads, n_q, D] and LSE [B, heads, n_q] of one group.

    `v` is [X, n_k, D]. Without `needs_lse` the LSE is -inf throughout.
    """
    q = logits.q
    covered = sum(chunk.rows.numel() for chunk in group.chunks) == q.shape[2]
    make = torch.empty if covered else torch.zeros
    output = make(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.full(q.shape[:3], -torch.inf, dtype=q.dtype, device=q.device)
    plain = bool(v.sum().isfinite())
    for chunk, part in _steps(group, q):
        rows = _take_rows(q[part], chunk)
        keys = _take_keys(logits.k[part], chunk)
        scores = logits.scores(_stack(rows), keys, chunk, part)
        weights = torch.softmax(scores, -1)
        values = _take_keys(v[part], chunk)
        flat = weights.view(len(values), -1, scores.shape[-1])
        found = torch.bmm(flat, values) if plain else weighted_sum(flat, values)
        found = found.view(rows.shape)
        if needs_lse or chunk.may_be_empty:
            top = scores.amax(-1)
            empty = top == -torch.inf
            found = found.masked_fill(empty.unsqueeze(-1), 0)
            # The greatest weight is 1 / sum(exp(s - top)).
            sums = (top - weights.amax(-1).log()).masked_fill(empty, -torch.inf)
            _put_rows(lse, chunk, part, sums)
        _put_rows(output, chunk, part, found)
    heads = len(group.heads)
    return output.view(-1, heads, *q.shape[2:]), lse.view(-1, heads, q.shape[2])


def _backward(
    group: Group, logits: _Logits, v: Tensor, rows: _Rows
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the scaled queries [B, heads, n_q, D], keys and values.

    The weights are computed again, since exp(s - lse) needs no sum.
    """
    q = logits.q
    grad_q = torch.zeros_like(q, memory_format=torch.contiguous_format)
    grad_k, grad_v = torch.zeros_like(v), torch.zeros_like(v)
    for chunk, part in _steps(group, q):
        queries = _stack(_take_rows(q[part], chunk))
        keys = _take_keys(logits.k[part], chunk)
        values = _take_keys(v[part], chunk)
        scores = logits.scores(queries, keys, chunk, part)
        lse = _take_rows(rows.lse[part], chunk).unsqueeze(-1)
        # An empty row has LSE -inf; 0 in its place gives exp(-inf - 0) = 0.
        lse = lse.masked_fill(lse == -torch.inf, 0)
        weights = scores.sub_(lse).exp_()
        grad = _stack(_take_rows(rows.grad_output[part], chunk))
        flat = weights.view(len(keys), -1, keys.shape[1])
        _add_keys(grad_v, chunk, part, torch.bmm(flat.transpose(1, 2), grad))
        shift = _take_rows(rows.shift[part], chunk).reshape(len(keys), -1, 1)
        grad_scores = torch.bmm(grad, values.transpose(1, 2)).sub_(shift).mul_(flat)
        _add_keys(grad_k, chunk, part, torch.bmm(grad_scores.transpose(1, 2), queries))
        found = torch.bmm(grad_scores, keys)
        tiles, count = chunk.rows.shape
        found = found.view(-1, tiles, group.share, count, q.shape[3])
        _put_rows(grad_q, chunk, part, found)
    batch = len(q) // len(group.kv_heads)
    return (
        grad_q.view(batch, len(group.heads), *q.shape[2:]),
        grad_k.view(batch, len(group.kv_heads), *v.shape[1:]),
        grad_v.view(batch, len(group.kv_heads), *v.shape[1:]),
    )


def _stack(rows: Tensor) -> Tensor:
    """[X, T, share, R, D] -> [X*T, share*R, D]: heads that share keys as more rows."""
    return rows.flatten(2, 3).flatten(0, 1)
