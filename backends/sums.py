"""A product of weights and values in which what is hidden stays hidden.

In: weights, values, and which of them are seen. Out: their sums. Not its job: weights
(`backends.reference`, `backends.weighing`), gradients (`backends.reference`).

This file reads nothing of patternc: generated kernel modules carry its text.
"""

from __future__ import annotations

import torch


def weighted_sum(
    weights: torch.Tensor, values: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """`weights @ values`, where nothing at all comes from a value that is not seen.

    [..., n, m] @ [..., m, D]; `seen` is bool [..., n, m]. A plain product would give
    0 * NaN = NaN, and so spread what stands at an invisible key to all rows. What is
    seen and not finite comes through whatever its weight is.
    """
    if bool(values.sum().isfinite()):  # else one is not finite, or the sum overflowed
        return weights @ values
    pairs = seen.to(values.dtype)
    total = weights @ torch.where(values.isfinite(), values, 0)
    for special, present in (
        (torch.inf, values == torch.inf),
        (-torch.inf, values == -torch.inf),
        (torch.nan, values.isnan()),
    ):
        reached = pairs @ present.to(values.dtype) > 0
        total = total + torch.zeros_like(total).masked_fill(reached, special)
    return total
