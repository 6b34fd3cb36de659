"""The values of a map, and what is done to them whatever the map is.

In: numbers and which of them are live. Out: the same of some rows, spread over all
entries, without NaN, or as shares. Not its job: computing a map (`backends.maps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Part = tuple[int, int]
"""Some of the values of a map's first key: from the first to before the second."""


@dataclass(frozen=True, slots=True)
class Values:
    """The numbers of a map and its live entries; both broadcast to [B, H, sizes...].

    With channels the numbers have one more axis, D, at the end. What a number is where
    the entry is not live means nothing.
    """

    numbers: Tensor
    live: Tensor


def rows_of(found: Values, part: Part | None, keys: int) -> Values:
    """Some rows of computed values."""
    if part is None or not keys:
        return found
    numbers, live = (
        x if x.shape[2] == 1 else x[:, :, part[0] : part[1]]
        for x in (found.numbers, found.live)
    )
    return Values(numbers, live)


def spread(
    found: Values,
    sizes: Sequence[int],
    channels: bool,
    heads: Sequence[int] | None = None,
) -> Values:
    """Values spread over all entries, for those heads or for the heads they have."""
    numbers, live = found.numbers, found.live
    width = (numbers.shape[-1],) if channels else ()
    front = numbers.shape[:2] if heads is None else tuple(heads)
    own = live.shape[:2] if heads is None else tuple(heads)
    return Values(numbers.expand(*front, *sizes, *width), live.expand(*own, *sizes))


def clean(found: Values) -> Values:
    """0 in the place of what is not live, so that no NaN comes out of a product."""
    numbers = torch.where(found.live.unsqueeze(-1), found.numbers, 0)
    return Values(numbers, found.live)


def softmax_of(found: Values, size: int) -> Values:
    """Along the last key; see `ir.selection.Softmax`."""
    live = found.live
    shown = torch.where(live, found.numbers, -torch.inf)
    shown = shown.expand(*shown.shape[:-1], size)
    top = shown.amax(-1, keepdim=True) if size else shown.sum(-1, keepdim=True)
    shares = torch.exp(shown - torch.where(top == -torch.inf, 0, top))
    total = shares.sum(-1, keepdim=True)
    return Values(shares / torch.where(total == 0, 1, total), live)
