"""Selectors whose rows are single queries: MoBA, LongHeads, Quest, NSA, Sparsifiner.

In: q, k, or scores. Out: `Chosen`, with "chosen" [B, H, N, key groups].
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.selectors.chosen import (
    Chosen,
    blocks_of,
    causal,
    count_of,
    for_query_heads,
    means,
)


def moba(q: Tensor, k: Tensor, chunk: int, take: int) -> Chosen:
    """MoBA (arXiv 2502.13189), section 2.2: chunks by the product with their mean key.

    The own chunk is always one of the `take`; no chunk from the future is.
    """
    n = q.shape[2]
    own = blocks_of(n, chunk)
    gate = q @ means(for_query_heads(k, q.shape[1]), chunk).mT
    chunks = torch.arange(gate.shape[-1])
    gate = gate.masked_fill(chunks > own[:, None], -torch.inf)
    gate = gate.masked_fill(chunks == own[:, None], torch.inf)
    chosen = _top(gate, take) & (gate > -torch.inf)
    return Chosen(causal(n) & chosen[..., own], {"chosen": chosen})


def longheads(
    score: Tensor, window: int = 256, take: int = 16, begin: int = 4096, own: int = 1
) -> Chosen:
    """LongHeads (arXiv 2402.10685): chunks by their own score [B, H, N, chunks].

    The first chunk, that of the query and the one before it are always taken. Queries
    before `begin` see all keys up to their own. `own` = 0 hides the query's own key,
    as the released code does.
    """
    n = score.shape[2]
    at = blocks_of(n, window)
    chunks = torch.arange(score.shape[-1])
    gate = score.masked_fill(chunks > at[:, None], -torch.inf)
    forced = (chunks == 0) | (chunks == at[:, None]) | (chunks == at[:, None] - 1)
    gate = gate.masked_fill(forced, torch.inf)
    chosen = _top(gate, take) & (gate > -torch.inf)
    pairs = torch.arange(n)[:, None] - torch.arange(n)
    late = chosen[..., at] & (pairs >= 1 - own)
    early = torch.arange(n)[:, None] < begin
    return Chosen(causal(n) & torch.where(early, True, late), {"chosen": chosen})


def quest(q: Tensor, k: Tensor, budget: int, page: int = 16, newest: int = 0) -> Chosen:
    """Quest (arXiv 2406.10774), algorithm 1: pages by a bound on any product in them.

    At least 3 pages; pages beyond the query's own are no candidates. The `newest` ones
    up to it are taken first.
    """
    n = q.shape[2]
    keys = for_query_heads(k, q.shape[1])
    parts = torch.split(keys, page, dim=2)
    low = torch.stack([part.amin(2) for part in parts], 2)
    high = torch.stack([part.amax(2) for part in parts], 2)
    bound = torch.maximum(
        q[:, :, :, None] * low[:, :, None], q[:, :, :, None] * high[:, :, None]
    ).sum(-1)
    own = blocks_of(n, page)
    apart = own[:, None] - torch.arange(bound.shape[-1])
    bound = bound.masked_fill((apart >= 0) & (apart < newest), torch.inf)
    bound = bound.masked_fill(apart < 0, -torch.inf)
    chosen = _top(bound, max(3, budget // page)) & (bound > -torch.inf)
    return Chosen(causal(n) & chosen[..., own], {"chosen": chosen})


def nsa_selected(
    q: Tensor,
    k: Tensor,
    block: int = 64,
    take: int = 16,
    init: int = 1,
    local: int = 2,
) -> Chosen:
    """NSA (arXiv 2502.11089), section 3.3.2, with mean pooling as compression.

    Shares of a softmax over the blocks that end before the query are added up over the
    query heads of a key/value head. The first `init` blocks and the last `local` ones
    up to the query's own are always taken and count. "chosen" is the same for a group.
    """
    b, h, n, d = q.shape
    at = blocks_of(n, block)
    pooled = means(for_query_heads(k, h), block)
    blocks = torch.arange(count_of(n, block))
    whole = (blocks + 1) * block - 1 <= torch.arange(n)[:, None]
    score = (q @ pooled.mT / d**0.5).masked_fill(~whole, -torch.inf)
    shares = score.softmax(-1).nan_to_num(0.0)
    group = h // k.shape[1]
    summed = shares.view(b, -1, group, n, len(blocks)).sum(2)
    summed = summed.repeat_interleave(group, dim=1)
    apart = at[:, None] - blocks
    forced = ((blocks < init) | (apart < local)) & (apart >= 0)
    summed = summed.masked_fill(forced, torch.inf).masked_fill(apart < 0, -torch.inf)
    chosen = _top(summed, take) & (summed > -torch.inf)
    return Chosen(causal(n) & chosen[..., at], {"chosen": chosen})


def sparsifiner(score: Tensor, percent: int = 25) -> Chosen:
    """Sparsifiner (arXiv 2303.13755): the best keys of each row of predicted scores.

    `score` is [B, H, N, N]; its row 0, the class token, sees everything.
    """
    n = score.shape[-1]
    chosen = _top(score, -(-percent * n // 100))
    mask = chosen.clone()
    mask[:, :, 0] = True
    return Chosen(mask, {"chosen": chosen})


def _top(score: Tensor, take: int) -> Tensor:
    """The `take` greatest of each row."""
    best = score.topk(min(take, score.shape[-1]), dim=-1).indices
    return torch.zeros(score.shape, dtype=torch.bool).scatter(-1, best, True)
