"""XAttention (arXiv 2503.16428): blocks by the sums of their antidiagonals.

In: q, k. Out: `Chosen`. Algorithm 1; what is always kept is from the released code.
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
    spread,
)


def xattention(
    q: Tensor,
    k: Tensor,
    threshold: Tensor,
    stride: int = 8,
    block: int = 128,
) -> Chosen:
    """Of each row of blocks as many as it takes for `threshold` [H] of its mass.

    The first block and the diagonal are taken first. "chosen" is [B, H, row blocks, key
    blocks]. The length must divide by `stride`.
    """
    b, h, n, d = q.shape
    keys = for_query_heads(k, h)
    steps = n // stride
    # Row t holds the queries of a stride from the last to the first, beside its keys
    # from the first to the last: their product is a sum along an antidiagonal.
    queries = q.view(b, h, steps, stride, d).flip(3).reshape(b, h, steps, stride * d)
    products = queries @ keys.reshape(b, h, steps, stride * d).mT
    products = products / (d**0.5 * stride)
    shares = products.masked_fill(~causal(steps), -torch.inf).softmax(-1)

    count = count_of(n, block)
    at = blocks_of(n, block)[::stride]
    mass = torch.zeros(b, h, count, count, dtype=q.dtype)
    for row in range(steps):
        for column in range(row + 1):
            mass[:, :, at[row], at[column]] += shares[:, :, row, column]

    chosen = torch.zeros(b, h, count, count, dtype=torch.bool)
    for i in range(b):
        for j in range(h):
            for row in range(count):
                wanted = float(threshold[j] * mass[i, j, row].sum())
                first = {0, row}
                others = [x for x in range(row + 1) if x not in first]
                others.sort(key=lambda x: -float(mass[i, j, row, x]))
                held = sum(float(mass[i, j, row, x]) for x in first)
                chosen[i, j, row, list(first)] = True
                for x in others:
                    if held >= wanted:
                        break
                    chosen[i, j, row, x] = True
                    held += float(mass[i, j, row, x])
    own = blocks_of(n, block)
    return Chosen(causal(n) & spread(chosen, own, own), {"chosen": chosen})
