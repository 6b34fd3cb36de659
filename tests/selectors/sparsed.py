"""SparseD (arXiv 2509.24014): the heaviest blocks of the full attention, kept for later.

In: q, k of the step at which the pattern is taken. Out: `Chosen`, for all later steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.selectors.chosen import Chosen, blocks_of, count_of, greatest, logits, spread


def sparsed(
    q: Tensor, k: Tensor, prompt: int, select: float = 0.3, block: int = 128
) -> Chosen:
    """For each row of blocks a share of the blocks before the generated tokens, by the
    attention to all keys, and one of the generated blocks, by the attention to them.

    The first `prompt` tokens, a number of whole blocks, are the prompt. "early" and
    "late" are [B, H, row blocks, key blocks].
    """
    n = q.shape[2]
    at, count, start = blocks_of(n, block), count_of(n, block), prompt // block
    scores = logits(q, k)
    early = _heaviest(scores.softmax(-1), at, int(count * select) + 1, count)
    early[..., start:] = False
    hidden = torch.arange(n) < prompt
    shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    late = torch.zeros_like(early)
    if count > start:
        # Only blocks of generated tokens are candidates.
        own = shares[..., prompt:]
        found = _heaviest(own, at, int((count - start) * select) + 1, count - start)
        late[..., start:] = found
    return Chosen(spread(early | late, at, at), {"early": early, "late": late})


def _heaviest(shares: Tensor, at: Tensor, take: int, columns: int) -> Tensor:
    """The blocks of keys with the most attention of each block of queries."""
    b, h, _, width = shares.shape
    rows = int(at[-1]) + 1
    found = torch.zeros(b, h, rows, columns, dtype=torch.bool)
    for row in range(rows):
        mass = shares[:, :, at == row].sum(2)
        for i in range(b):
            for j in range(h):
                block = [mass[i, j, at[:width] == x].sum() for x in range(columns)]
                found[i, j, row] = greatest(torch.stack(block), take)
    return found
