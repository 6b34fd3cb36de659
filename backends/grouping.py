"""Sums, means, extremes and entropies by group, some entries at a time.

In: numbers, which of them are live, and the group of each. Out: one number for each
group. Not its job: which map that is (`backends.maps`).

On a GPU the same numbers come out in every run: no two entries are added in an order
that chance decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patternc.ir.nodes import Attention
from patternc.ir.selection import (
    Reduction,
    Sharing,
)


@dataclass
class Groups:
    """What is known of every group: a total or an extreme, and how many are in it.

    `totals` is [B, H, sizes..., D if there are channels], `counts` the same without D.
    """

    how: Reduction
    channels: bool
    totals: Tensor
    counts: Tensor

    @staticmethod
    def empty(
        how: Reduction, shape: Sequence[int], channels: bool, like: Tensor
    ) -> Groups:
        """No entry so far."""
        start = {Reduction.MAX: -torch.inf, Reduction.MIN: torch.inf}.get(how, 0.0)
        totals = torch.full(tuple(shape), start, dtype=like.dtype, device=like.device)
        own = tuple(shape[:-1]) if channels else tuple(shape)
        counts = torch.zeros(own, dtype=torch.int64, device=like.device)
        return Groups(how, channels, totals, counts)


def grouped(
    groups: Groups, numbers: Tensor, live: Tensor, places: Sequence[Tensor]
) -> None:
    """Add entries: `numbers` [B, H, n..., D?], `live` [B, H, n...], and for each key of
    the groups the index of every entry, which broadcasts to `live`.
    """
    if groups.how is Reduction.ENTROPY:
        numbers = torch.where(numbers == 0, 0, -numbers * numbers.log())
    neutral = {Reduction.MAX: -torch.inf, Reduction.MIN: torch.inf}.get(groups.how, 0.0)
    seen = live.unsqueeze(-1) if groups.channels else live
    numbers = torch.where(seen, numbers, neutral)
    counts = live.to(torch.int64)
    # What no key tells apart is put together first.
    alone = [
        dim
        for dim in range(2, live.dim())
        if all(place.dim() <= dim or place.shape[dim] == 1 for place in places)
    ]
    if alone:
        numbers = _together(groups.how, numbers, alone)
        counts = counts.sum(alone, keepdim=True)
    shape = counts.shape
    at = torch.zeros((1,) * len(shape), dtype=torch.int64, device=live.device)
    sizes = groups.counts.shape[2:]
    for place, size in zip(places, sizes, strict=True):
        at = at * size + place
    front = (shape[0], shape[1], -1)
    at = at.expand(shape).reshape(front)
    width = (numbers.shape[-1],) if groups.channels else ()
    _add(groups, numbers.reshape(*front, *width), counts.reshape(front), at)


def _together(how: Reduction, numbers: Tensor, dims: list[int]) -> Tensor:
    if how is Reduction.MAX:
        return numbers.amax(dims, keepdim=True)
    if how is Reduction.MIN:
        return numbers.amin(dims, keepdim=True)
    return numbers.sum(dims, keepdim=True)


def _add(groups: Groups, numbers: Tensor, counts: Tensor, at: Tensor) -> None:
    """Put `counts` [B, H, n] and `numbers` [B, H, n, D?] where `at` [B, H, n] says."""
    own = groups.counts.reshape(*counts.shape[:2], -1)
    own.scatter_add_(2, at, counts)  # integers: any order gives the same
    groups.counts = own.reshape(groups.counts.shape)
    totals = groups.totals.reshape(*own.shape, *numbers.shape[3:])
    if groups.channels:
        at = at.unsqueeze(-1).expand(numbers.shape)
    if groups.how in (Reduction.MAX, Reduction.MIN):
        word = "amax" if groups.how is Reduction.MAX else "amin"
        totals = totals.scatter_reduce(2, at, numbers, word)
    elif totals.device.type == "cpu":
        totals = totals.scatter_add(2, at, numbers)
    else:  # sorted by place, and so added in one order
        indices = list(_grid(at))
        indices[2] = at
        totals = totals.index_put(tuple(indices), numbers, accumulate=True)
    groups.totals = totals.reshape(groups.totals.shape)


def _grid(like: Tensor) -> list[Tensor]:
    """The index along each dimension, as tensors that broadcast to `like`."""
    return [
        torch.arange(size, device=like.device).view(
            [-1 if place == dim else 1 for place in range(like.dim())]
        )
        for dim, size in enumerate(like.shape)
    ]


def of_groups(groups: Groups) -> tuple[Tensor, Tensor]:
    """The number of each group and whether there is one: whether it has an entry."""
    live = groups.counts > 0
    if groups.how is not Reduction.MEAN:
        return groups.totals, live
    counts = groups.counts.clamp(min=1)
    if groups.channels:
        counts = counts.unsqueeze(-1)
    return groups.totals / counts, live


def join_heads(
    groups: Groups, over: Sharing, attention: Attention, numbers: Tensor, live: Tensor
) -> tuple[Tensor, Tensor]:
    """All heads, or those of a key/value head, put together: each gets the result."""
    if over is Sharing.ALONE:
        return numbers, live
    size = attention.heads if over is Sharing.ALL else attention.group_size
    totals = _by_heads(groups.totals, size)
    joined = _together(groups.how, totals, [2])
    counts = _by_heads(groups.counts, size).sum(2, keepdim=True)
    if groups.how is Reduction.MEAN:
        by = counts.clamp(min=1)
        joined = joined / (by.unsqueeze(-1) if groups.channels else by)
    spread = joined.expand(totals.shape).flatten(1, 2)
    return spread, (counts > 0).expand(*totals.shape[:3], *counts.shape[3:]).flatten(
        1, 2
    )


def _by_heads(x: Tensor, size: int) -> Tensor:
    """[B, H, ...] -> [B, H / size, size, ...]."""
    return x.reshape(x.shape[0], x.shape[1] // size, size, *x.shape[2:])
