"""SpargeAttn (arXiv 2502.18137): blocks whose mean stands for them, by mass.

In: q, k. Out: `Chosen`. Section 3.2 and 3.3, without the filter inside the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.selectors.chosen import Chosen, blocks_of, causal, for_query_heads, spread


def sparge(
    q: Tensor,
    k: Tensor,
    mass: float | None = 0.98,
    part: float = 0.5,
    similar: float = 0.6,
    block_q: int = 128,
    block_k: int = 64,
    is_causal: bool = False,
) -> Chosen:
    """Blocks of each row with `mass` of the estimate, or `part` of all of them.

    Rows and columns of blocks whose tokens are not alike are kept whole. "alike_q"
    [B, H, row blocks], "alike_k" [B, H, key blocks], "chosen" [B, H, row blocks, key
    blocks] without those.
    """
    n = q.shape[2]
    keys = for_query_heads(k, q.shape[1])
    keys = keys - keys.mean(2, keepdim=True)
    rows, alike_q = _pooled(q, block_q, similar)
    columns, alike_k = _pooled(keys, block_k, similar)
    score = rows @ columns.mT / q.shape[-1] ** 0.5
    score = score.masked_fill(~alike_k[:, :, None, :], -torch.inf)
    reach = torch.ones(score.shape[2:], dtype=torch.bool)
    if is_causal:
        for i in range(reach.shape[0]):
            for j in range(reach.shape[1]):
                reach[i, j] = j < (i + 1) * block_q / block_k
        score = score.masked_fill(~reach, -torch.inf)
    shares = score.softmax(-1).nan_to_num(0.0)
    ranked = shares.sort(-1, descending=True)
    if mass is not None:
        number = (ranked.values.cumsum(-1) <= mass).sum(-1)  # the crossing one is out
    else:
        number = torch.full(shares.shape[:3], int(part * shares.shape[-1]))
    number = number.clamp(min=1)
    taken = torch.arange(shares.shape[-1]) < number[..., None]
    chosen = torch.zeros(shares.shape, dtype=torch.bool)
    chosen.scatter_(-1, ranked.indices, taken)
    kept = chosen | ~alike_q[..., None] | ~alike_k[:, :, None, :]
    mask = spread(kept & reach, blocks_of(n, block_q), blocks_of(n, block_k))
    if is_causal:
        mask = mask & causal(n)
    found = {"alike_q": alike_q, "alike_k": alike_k, "chosen": chosen & reach}
    return Chosen(mask, found)


def _pooled(x: Tensor, block: int, similar: float) -> tuple[Tensor, Tensor]:
    """The mean of each block, and whether the mean cosine of its pairs is enough."""
    pooled, alike = [], []
    for part in torch.split(x, block, dim=2):
        unit = part / part.norm(dim=-1, keepdim=True)
        pooled.append(part.mean(2))
        alike.append((unit @ unit.mT).mean((-1, -2)) > similar)
    return torch.stack(pooled, 2), torch.stack(alike, 2)
