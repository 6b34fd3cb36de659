"""MInference 1.0 (arXiv 2407.02490): vertical-slash, and the top blocks of each row.

In: q, k. Out: `Chosen`. Steps as in its appendix; where a number is not in the paper it
is that of the serving code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.selectors.chosen import (
    Chosen,
    blocks_of,
    causal,
    greatest,
    logits,
    means,
    spread,
)


def vertical_slash(
    q: Tensor,
    k: Tensor,
    columns: int,
    slashes: int,
    last: int = 64,
    first: int = 30,
    near: int = 100,
    tile: int = 1,
) -> Chosen:
    """Columns and diagonals with the most attention of the last `last` queries.

    The first `first` columns and the `near` nearest diagonals are always taken and
    count. "verticals" [B, H, N] by key, "diagonals" [B, H, N] by q - k. With a `tile`
    above 1 a diagonal s is, as in the published kernels, the keys from end - s - tile to
    end - s for all queries of a tile that ends at `end`.
    """
    b, h, n, _ = q.shape
    last = min(last, n)
    rows = torch.arange(n - last, n)
    seen = torch.arange(n) <= rows[:, None]
    shares = logits(q, k)[:, :, n - last :].masked_fill(~seen, -torch.inf).softmax(-1)

    vertical = shares.sum(2)
    vertical[:, :, :first] = torch.inf
    slash = torch.zeros(b, h, n, dtype=q.dtype)
    for row, position in enumerate(rows.tolist()):
        for key in range(position + 1):
            slash[:, :, position - key] += shares[:, :, row, key]
    slash[:, :, :near] = torch.inf

    verticals = torch.zeros(b, h, n, dtype=torch.bool)
    diagonals = torch.zeros(b, h, n, dtype=torch.bool)
    for i in range(b):
        for j in range(h):
            verticals[i, j] = greatest(vertical[i, j], max(columns, first))
            diagonals[i, j] = greatest(slash[i, j], max(slashes, near))
    apart = (torch.arange(n)[:, None] - torch.arange(n)).clamp(min=0)
    lines = diagonals[:, :, apart] if tile == 1 else _runs(diagonals, tile)
    mask = causal(n) & (verticals[:, :, None, :] | lines)
    return Chosen(mask, {"verticals": verticals, "diagonals": diagonals})


def _runs(diagonals: Tensor, tile: int) -> Tensor:
    """The keys that tiles of queries see of their diagonals, [B, H, N, N]."""
    n = diagonals.shape[-1]
    seen = torch.zeros(*diagonals.shape, n, dtype=torch.bool)
    for b, h, slash in diagonals.nonzero().tolist():
        for start in range(0, n, tile):
            end = start + tile - slash
            seen[b, h, start : start + tile, max(end - tile, 0) : max(end, 0)] = True
    return seen


def block_topk(q: Tensor, k: Tensor, blocks: int, block: int = 64) -> Chosen:
    """For each block of queries the blocks of keys with the greatest mean product.

    "chosen" is [B, H, row blocks, key blocks].
    """
    n = q.shape[2]
    products = logits(means(q, block), means(k, block))
    count = products.shape[-1]
    products = products.masked_fill(~causal(count), -torch.inf)
    chosen = torch.zeros(products.shape, dtype=torch.bool)
    for place in torch.cartesian_prod(*map(torch.arange, products.shape[:3])).tolist():
        chosen[tuple(place)] = greatest(products[tuple(place)], blocks)
    chosen &= causal(count)
    at = blocks_of(n, block)
    return Chosen(causal(n) & spread(chosen, at, at), {"chosen": chosen})
