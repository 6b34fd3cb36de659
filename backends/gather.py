"""What the tiled backend takes from tensors for a group and a chunk, and puts back.

In: tensors of a whole call, [B, H, n_q, ...] or [B, KV, n_k, ...]. Out: for a group X
batch elements times key/value heads, for a chunk the rows and keys of T query tiles,
and logits. Not its job: which rows and keys (`backends.chunks`), weights
(`backends.weighing`), sums over keys (`backends.tiled`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from patternc.backends.chunks import Chunk, Group
from patternc.backends.reference import split_finite


def elements_slice(group: Group) -> slice:
    return slice(group.elements.start, group.elements.stop)


def own_inputs(inputs: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Views of the inputs of a group's batch elements, without a batch axis."""
    return {
        name: item[group.elements.start % len(item)] for name, item in inputs.items()
    }


def rows_of_group(x: Tensor, group: Group) -> Tensor:
    """[B, H, n_q, ...] -> [X, share, n_q, ...], X batch elements times kv heads."""
    own = x[elements_slice(group)]
    taken = own if len(group.heads) == x.shape[1] else own[:, list(group.heads)]
    return taken.reshape(-1, group.share, *x.shape[2:])


def keys_of_group(x: Tensor, group: Group) -> Tensor:
    """[B, KV, n_k, ...] -> [X, n_k, ...]."""
    own = x[elements_slice(group)]
    taken = own if len(group.kv_heads) == x.shape[1] else own[:, list(group.kv_heads)]
    return taken.reshape(-1, *x.shape[2:])


@dataclass(frozen=True, slots=True)
class Logits:
    """What the scores are computed from: scaled queries and keys.

    Both are finite, as gradients need them; `given` are queries and keys as they came,
    if they were not. `exact` says that a score may overflow or be NaN; then the mask
    must replace scores, where otherwise it is enough to add -inf to them, which a CPU
    does ten times faster.
    """

    q: Tensor
    k: Tensor
    given: tuple[Tensor, Tensor] | None
    exact: bool

    @staticmethod
    def of(q: Tensor, k: Tensor, scale: float) -> Logits:
        """Scale the queries; look once at how large the scores can become."""
        scaled = q * scale
        bound = _greatest(scaled) * _greatest(k) * q.shape[3]
        exact = not bound < torch.finfo(q.dtype).max  # so also if it is NaN
        if not exact:
            return Logits(scaled, k, None, exact)
        (queries, no_query), (keys, no_key) = split_finite(scaled), split_finite(k)
        is_finite = no_query is None and no_key is None
        return Logits(queries, keys, None if is_finite else (scaled, k), exact)

    def of_heads(self, group: Group) -> Logits:
        """The heads of a group: `q` [X, share, n_q, D], `k` [X, n_k, D]."""
        given = None
        if self.given is not None:
            queries, keys = self.given
            given = rows_of_group(queries, group), keys_of_group(keys, group)
        return Logits(
            rows_of_group(self.q, group),
            keys_of_group(self.k, group),
            given,
            self.exact,
        )

    def raw(self, q: Tensor, k: Tensor, chunk: Chunk, part: slice) -> Tensor:
        """The logits of all pairs [X, T, share, R, C], visible or not.

        `q` is [X*T, share*R, D], `k` is [X*T, C, D]; `part` are their places in X.
        """
        tiles, rows = chunk.rows.shape
        if self.given is not None:
            q = stack(take_rows(self.given[0][part], chunk))
            k = take_keys(self.given[1][part], chunk)
        scores = torch.bmm(q, k.transpose(1, 2))
        return scores.view(-1, tiles, q.shape[1] // rows, rows, k.shape[1])

    def hide(self, scores: Tensor, chunk: Chunk) -> Tensor:
        """Put -inf where a pair is invisible, in place."""
        for run, visible in zip(chunk.runs, chunk.visibility(), strict=True):
            place = scores[..., run.start : run.stop]
            visible = visible.unsqueeze(1)
            if self.exact:
                place.masked_fill_(~visible, -torch.inf)
            else:
                place -= visible.to(scores.dtype).reciprocal_().sub_(1)  # 0, or inf
        return scores


def _greatest(x: Tensor) -> float:
    """The greatest magnitude in `x`; NaN if there is one."""
    least, most = torch.aminmax(x)
    return float(torch.maximum(-least, most))


@dataclass(frozen=True, slots=True)
class FloatInputs:
    """The floating inputs of a group's batch elements, and views of their gradients."""

    inputs: Mapping[str, Tensor]
    totals: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Rows:
    """What the backward pass reads of each row: [X, share, n_q], the last with D_v.

    `exact` says that something may not be finite: nothing of it may come to a hidden
    pair.
    """

    lse: Tensor
    shift: Tensor
    grad_output: Tensor
    exact: bool


def take_rows(x: Tensor, chunk: Chunk) -> Tensor:
    """[X, share, n_q, ...] -> [X, T, share, R, ...], a view where that can be."""
    tiles, rows = chunk.rows.shape
    if chunk.first_row is None:
        taken = x.index_select(2, chunk.rows.flatten())
    else:
        taken = x.narrow(2, chunk.first_row, tiles * rows)
    split = taken.view(*taken.shape[:2], tiles, rows, *taken.shape[3:])
    return split.transpose(1, 2)


def put_rows(x: Tensor, chunk: Chunk, part: slice, rows: Tensor) -> None:
    """Store rows [X, T, share, R, ...] in their places in x [X, share, n_q, ...]."""
    flat = rows.transpose(1, 2).flatten(2, 3)
    if chunk.first_row is None:
        x[part].index_copy_(2, chunk.rows.flatten(), flat)
    else:
        x[part].narrow(2, chunk.first_row, flat.shape[2]).copy_(flat)


def take_keys(x: Tensor, chunk: Chunk) -> Tensor:
    """[X, n_k, D] -> [X*T, C, D], a view where that can be."""
    if chunk.first_key is not None and len(chunk.keys) == 1:
        return x.narrow(1, chunk.first_key, chunk.keys.shape[1])
    taken = x.index_select(1, chunk.keys.flatten())
    return taken.view(-1, chunk.keys.shape[1], x.shape[2])


def add_keys(x: Tensor, chunk: Chunk, part: slice, keys: Tensor) -> None:
    """Add [X*T, C, D] at the keys' places in x [X, n_k, D]."""
    if chunk.first_key is not None and len(chunk.keys) == 1:
        x[part].narrow(1, chunk.first_key, chunk.keys.shape[1]).add_(keys)
    else:
        flat = keys.reshape(-1, chunk.keys.numel(), x.shape[2])
        x[part].index_add_(1, chunk.keys.flatten(), flat)


def stack(rows: Tensor) -> Tensor:
    """[X, T, share, R, D] -> [X*T, share*R, D]: heads that share keys as more rows."""
    return rows.flatten(2, 3).flatten(0, 1)
