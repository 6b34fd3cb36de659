"""FlexPrefill (arXiv 2502.20766): a pattern for each head, chosen by a test.

In: q, k. Out: `Chosen`. The paper's algorithms 1 to 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.selectors.chosen import (
    Chosen,
    blocks_of,
    causal,
    count_of,
    for_query_heads,
    greatest,
    logits,
    means,
    spread,
    until,
)


def flexprefill(
    q: Tensor,
    k: Tensor,
    gamma: float = 0.9,
    tau: float = 0.1,
    least: int = 1024,
    block: int = 128,
    unit: int = 128,
    drop_like_code: bool = True,
    whole_like_code: bool = True,
) -> Chosen:
    """Blocks by estimated mass (query-aware heads), or columns and diagonals of blocks.

    `unit` is the number of tokens that count as a block in a budget: the released code
    has 128 whatever the block. With `drop_like_code` the block that would take a
    query-aware head over `gamma` is left out, with `whole_like_code` rows of at most 2
    blocks, or of `least` tokens in whole blocks, see all. "aware" [B, H], "columns" and
    "diagonals" [B, H, blocks], "blocks" [B, H, row blocks, key blocks].
    """
    b, h, n, d = q.shape
    count = count_of(n, block)
    lowest = count_of(least, block)
    rows = torch.arange(n - block, n)
    seen = torch.arange(n) <= rows[:, None]
    shares = logits(q, k)[:, :, -block:].masked_fill(~seen, -torch.inf).softmax(-1)
    pooled_keys = means(for_query_heads(k, h), block)
    pooled_query = q[:, :, -block:].mean(2, keepdim=True)
    guessed = (pooled_query @ pooled_keys.mT)[:, :, 0].div(math.sqrt(d)).softmax(-1)
    by_block = logits(means(q, block), means(k, block))
    by_block = by_block.masked_fill(~causal(count), -torch.inf).softmax(-1)

    aware = torch.zeros(b, h, dtype=torch.bool)
    columns = torch.zeros(b, h, count, dtype=torch.bool)
    diagonals = torch.zeros(b, h, count, dtype=torch.bool)
    blocks = torch.zeros(b, h, count, count, dtype=torch.bool)
    for i in range(b):
        for j in range(h):
            vertical, slash = _profiles(shares[i, j], rows)
            wide = max(until(vertical, gamma) // unit + 1, lowest)
            deep = max(until(slash, gamma) // unit + 1, lowest)
            vertical_blocks = torch.stack(
                [x.sum() for x in torch.split(vertical, block)]
            )
            slash_blocks = torch.stack([x.sum() for x in torch.split(slash, block)])
            aware[i, j] = _distance(guessed[i, j], vertical_blocks) < tau
            if aware[i, j]:
                wide = deep = lowest
                flat = by_block[i, j].flatten()
                taken = until(flat, gamma * count) - (1 if drop_like_code else 0)
                blocks[i, j] = greatest(flat, taken).view(count, count)
            vertical_blocks[0] = slash_blocks[0] = torch.inf
            columns[i, j] = greatest(vertical_blocks, wide)
            diagonals[i, j] = greatest(slash_blocks, deep)
    at = blocks_of(n, block)
    apart = (torch.arange(count)[:, None] - torch.arange(count)).clamp(min=0)
    lines = columns[:, :, None, :] | diagonals[:, :, apart]
    mask = causal(n) & spread((blocks | lines) & causal(count), at, at)
    if whole_like_code and n <= max(2 * block, lowest * block):
        mask = causal(n).expand(mask.shape)
    found = {
        "aware": aware,
        "columns": columns,
        "diagonals": diagonals,
        "blocks": blocks,
    }
    return Chosen(mask, found)


def _profiles(shares: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean attention on each column, and on each diagonal q - k."""
    slash = torch.zeros(shares.shape[1], dtype=shares.dtype)
    for row, position in enumerate(rows.tolist()):
        slash[: position + 1] += shares[row, : position + 1].flip(0)
    return shares.mean(0), slash / len(rows)


def _distance(p: Tensor, q: Tensor) -> float:
    """The root of the Jensen-Shannon divergence, in nats; 0 log 0 is 0."""
    total = 0.0
    for x, y in zip(p.tolist(), q.tolist(), strict=True):
        middle = (x + y) / 2
        total += sum(z * math.log(z / middle) / 2 for z in (x, y) if z > 0)
    return math.sqrt(max(total, 0.0))
