"""What a published selector chooses, in plain PyTorch, and the pieces they share.

In: queries and keys of one call, [B, H, N, D] and [B, KV, N, D]. Out: `Chosen`. Not its
job: any part of patternc: this folder imports nothing of it, so that what it says about
a paper and what a `.pat` file says are two opinions.

The transcriptions follow the steps of the papers, head by head and row by row where
that is plainer, for small square calls in float64. `*_like_code` arguments take what
released code does where it differs from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Chosen:
    """The visible pairs, bool [B, H, N, N], and the chosen groups by name.

    A set is a bool tensor [B, H, ...] whose index is the group itself: a column, a
    diagonal q - k, a block of keys, a block of queries and one of keys.
    """

    mask: Tensor
    sets: Mapping[str, Tensor]


def for_query_heads(k: Tensor, heads: int) -> Tensor:
    """The keys that each query head reads: [B, KV, N, D] -> [B, H, N, D]."""
    return k.repeat_interleave(heads // k.shape[1], dim=1)


def logits(q: Tensor, k: Tensor) -> Tensor:
    """q.k / sqrt(D), [B, H, n_q, n_k]."""
    found: Tensor = q @ for_query_heads(k, q.shape[1]).mT / q.shape[-1] ** 0.5
    return found


def causal(n: int) -> Tensor:
    """Pairs without future keys, bool [n, n]."""
    return torch.ones(n, n, dtype=torch.bool).tril()


def blocks_of(n: int, block: int) -> Tensor:
    """The block of each token, [n]."""
    return torch.arange(n) // block


def count_of(n: int, block: int) -> int:
    """How many blocks n tokens have; the last may be short."""
    return -(-n // block)


def means(x: Tensor, block: int) -> Tensor:
    """The mean of each block of tokens, [B, H, N, D] -> [B, H, blocks, D]."""
    return torch.stack([part.mean(2) for part in torch.split(x, block, dim=2)], dim=2)


def spread(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pairs (q, k) with table[..., rows[q], columns[k]]: bool [B, H, N, N]."""
    return table[:, :, rows[:, None], columns[None, :]]


def greatest(row: Tensor, count: int) -> Tensor:
    """The `count` greatest numbers of a vector, as a bool vector."""
    taken = torch.zeros(len(row), dtype=torch.bool)
    taken[row.topk(min(count, len(row))).indices] = True
    return taken


def until(row: Tensor, wanted: float) -> int:
    """How many of the greatest numbers it takes for a sum above `wanted`."""
    return int((row.sort(descending=True).values.cumsum(0) <= wanted).sum()) + 1
