"""The meaning of selections: which keys of a map are taken.

In: a selection, its map's numbers and live entries, its amounts. Out: a table of truth
values. Not its job: computing maps (`backends.maps`).

Within a scope the live entries have one order: `always` members first, then the
greatest number first, NaN after all numbers, equal ones by their keys. Nothing waits
for the device, and no shape depends on the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from patternc.backends.values import compared
from patternc.ir.nodes import CompareOp
from patternc.ir.selection import (
    Choice,
    Crossing,
    Selection,
)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The entries of a map, scope by scope: [B, H, scopes..., M] with M in key order.

    `always` is a part of `live`. `amount`, `least` and `most` are [B, H, scopes..., 1]
    or broadcast to it.
    """

    numbers: Tensor
    live: Tensor
    always: Tensor
    amount: Tensor
    least: Tensor | None
    most: Tensor | None


def chosen(selection: Selection, given: Candidates) -> Tensor:
    """Which candidates are taken, bool of the shape of the numbers."""
    is_bounded = given.least is not None or given.most is not None
    if selection.choice is Choice.ABOVE and not is_bounded:
        held = compared(selection.compare, given.numbers, given.amount)
        return given.live & held | given.always
    order = _ranking(given)
    count = _count(selection, given, order)
    taken = torch.arange(order.shape[-1], device=order.device) < count
    return torch.zeros_like(given.live).scatter(-1, order, taken.expand(order.shape))


def _ranking(given: Candidates) -> Tensor:
    """The candidates from first to last, by number [..., M]."""
    numbers, is_nan = given.numbers, given.numbers.isnan()
    clean = torch.where(is_nan, -torch.inf, numbers)
    by_number = torch.sort(clean, dim=-1, descending=True, stable=True).indices
    rank = torch.where(given.always, 0, torch.where(is_nan, 2, 1))
    rank = torch.where(given.live, rank, 3).gather(-1, by_number)
    by_rank = torch.sort(rank, dim=-1, stable=True).indices
    return by_number.gather(-1, by_rank)


def _count(selection: Selection, given: Candidates, order: Tensor) -> Tensor:
    """How many candidates are taken, [..., 1]."""
    live = given.live.sum(-1, keepdim=True)
    always = given.always.sum(-1, keepdim=True)
    match selection.choice:
        case Choice.TOP:
            count = _whole(given.amount)
        case Choice.TOP_P:
            count = _until(selection, given, order)
        case Choice.ABOVE:
            if selection.compare not in (CompareOp.GT, CompareOp.GE):
                raise TypeError("only the greatest numbers come first")
            held = compared(selection.compare, given.numbers, given.amount)
            count = (given.live & held | given.always).sum(-1, keepdim=True)
        case _:
            assert_never(selection.choice)
    if given.least is not None:
        count = torch.maximum(count, _whole(given.least))
    if given.most is not None:
        count = torch.minimum(count, _whole(given.most))
    return torch.minimum(torch.maximum(count, always), live)


def _whole(amount: Tensor) -> Tensor:
    """A number rounded down; NaN is 0."""
    return amount.nan_to_num(nan=0.0).clamp(-(2**31), 2**31).floor().to(torch.int64)


def _until(selection: Selection, given: Candidates, order: Tensor) -> Tensor:
    """How many candidates it takes for a share of the sum of numbers above 0."""
    masses = torch.where(given.live & (given.numbers > 0), given.numbers, 0)
    masses = masses.gather(-1, order)
    reached = masses.cumsum(-1)
    if not order.shape[-1]:
        return reached.sum(-1, keepdim=True).to(torch.int64)
    wanted = reached[..., -1:] * given.amount
    if selection.crossing is Crossing.DROP:
        return (reached <= wanted).sum(-1, keepdim=True)
    # The sum before a candidate, from the same additions as the sum with it.
    before = torch.cat([torch.zeros_like(reached[..., :1]), reached[..., :-1]], -1)
    return (before < wanted).sum(-1, keepdim=True)
