"""The meaning of maps, in PyTorch: the definition of what selections rank.

In: a map of the IR, and the tensors of a call. Out: its numbers and which entries are
live, by `Estimate.values`. Not its job: choosing (`backends.choosing`), gradients: a
choice has none.

A map over single queries and keys is computed for some rows at a time wherever it is
put together afterwards, so that nothing of n_q x n_k is ever there unless a selection
itself has a table of that size. float64 is computed in float64, all else in float32.
Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import assert_never

import torch
from torch import Tensor

from patternc.backends.grouping import Groups, grouped, join_heads, of_groups
from patternc.backends.key_ranges import CallSizes, KeyRange, range_of
from patternc.backends.map_numbers import function_of, operation_of
from patternc.backends.map_values import (
    Part,
    Values,
    clean,
    rows_of,
    softmax_of,
    spread,
)
from patternc.backends.probe import live_rows
from patternc.backends.values import (
    Integers,
    Place,
    integers_at,
    numbers_at,
    truths_at,
)
from patternc.ir.nodes import (
    Attention,
    Axis,
    FloatExpr,
    Given,
    GivenValue,
    ScoreCase,
)
from patternc.ir.selection import (
    KEY_AXES,
    Count,
    Logits,
    MapAt,
    MapBinary,
    MapCall,
    MapExpr,
    MapNumber,
    MapScale,
    MapValue,
    MapWhere,
    Norm,
    Product,
    Reduce,
    Rows,
    Softmax,
    Tokens,
    has_channels,
    keys_of,
)

NUMBERS_AT_ONCE = 2**24
"""Numbers of all batch elements and heads that are computed together, about."""


@dataclass
class Estimate:
    """One call, of which maps are computed.

    `q` is [B, H, n_q, D] and `k` [B, KV, n_k, D], in the dtype to compute in; `inputs`
    hold a batch axis and the tables of selections that were computed before, `params`
    all run-time parameters, those of a plan too; with `check`, NaN is looked for.
    """

    attention: Attention
    q: Tensor
    k: Tensor
    scale: float
    q_offset: int
    params: Mapping[str, int]
    inputs: dict[str, Tensor]
    check: bool = False
    known: dict[MapExpr, Values] = field(default_factory=dict)

    @property
    def sizes(self) -> CallSizes:
        """The positions of the call."""
        return CallSizes(self.q.shape[2], self.k.shape[2], self.q_offset)

    def ranges(self, map_: MapExpr) -> tuple[KeyRange, ...]:
        """The values of each key of a map."""
        return tuple(range_of(key, self.sizes, self.params) for key in keys_of(map_))

    def parts(self, map_: MapExpr) -> Iterator[Part]:
        """The rows of a map that may be live, some at a time."""
        ranges = self.ranges(map_)
        start, stop = live_rows(map_, ranges[0], self.sizes.n_k, self.params)
        each = self.q.shape[0] * self.q.shape[1]
        for other in ranges[1:]:
            each *= other.size
        if has_channels(map_):
            each *= self.q.shape[3]
        step = max(1, NUMBERS_AT_ONCE // max(each, 1))
        for at in range(start, stop, step):
            yield at, min(at + step, stop)

    def values(self, map_: MapExpr, part: Part | None = None) -> Values:
        """A map, or the part of it with some values of its first key."""
        if part is None or not _is_by_row(map_):
            if map_ not in self.known:
                self.known[map_] = self.compute(map_, None)
            return rows_of(self.known[map_], part, len(keys_of(map_)))
        return self.compute(map_, part)

    def compute(self, map_: MapExpr, part: Part | None) -> Values:
        match map_:
            case Rows():
                return self.rows(map_, part)
            case Logits():
                return self.logits(part)
            case MapNumber():
                return self.number(map_.value)
            case MapScale():
                return self.number(self.scale)
            case MapValue():
                found = numbers_at(map_.value, self.place(map_, part))
                if not isinstance(found, Tensor):
                    return self.number(found, len(map_.keys))
                return Values(found.to(self.q.dtype), self.all_live(found.dim()))
            case MapAt():
                return self.read(map_, part)
            case MapBinary():
                return self.binary(map_, part)
            case MapCall():
                inner = self.values(map_.operand, part)
                return Values(function_of(map_.function, inner.numbers), inner.live)
            case MapWhere():
                inner = self.values(map_.operand, part)
                held = truths_at(map_.condition, self.place(map_, part))
                return Values(inner.numbers, inner.live & held)
            case Softmax():
                size = self.ranges(map_)[-1].size
                return softmax_of(self.values(map_.operand, part), size)
            case Reduce():
                return self.reduce(map_)
            case Product():
                return self.product(map_, part)
            case Norm():
                inner = self.values(map_.operand, part)
                return Values(inner.numbers.square().sum(-1).sqrt(), inner.live)
            case Count():
                return self.count(map_)
            case _:
                assert_never(map_)

    # --- where expressions are looked at

    def place(self, map_: MapExpr, part: Part | None) -> Place:
        """All entries of a map, or those of some rows, as axes [1, 1, ...]."""
        keys = keys_of(map_)
        axes: dict[Axis, Integers] = {}
        for number, own in enumerate(self.ranges(map_)):
            start, stop = part if part is not None and number == 0 else (0, own.size)
            first, end = own.first + start, own.first + stop
            values = torch.arange(first, end, device=self.q.device)
            axes[KEY_AXES[number]] = values.view(_along(2 + number, 2 + len(keys)))
        return self.at(axes, 2 + len(keys))

    @cached_property
    def elements(self) -> tuple[Tensor, Tensor]:
        """The numbers of the batch elements, and of the heads."""
        batch, heads = self.q.shape[:2]
        device = self.q.device
        return torch.arange(batch, device=device), torch.arange(heads, device=device)

    def at(self, axes: Mapping[Axis, Integers], dims: int) -> Place:
        """Everything around some axes, which have that many dimensions."""
        batch, heads = self.elements
        every: dict[Axis, Integers] = {
            Axis.HEAD: heads.view(_along(1, dims)),
            Axis.LENGTH: self.k.shape[2],
            **axes,
        }
        return Place(every, self.params, self.inputs, batch.view(_along(0, dims)))

    def number(self, value: float, keys: int = 0) -> Values:
        shape = (1,) * (2 + keys)
        numbers = torch.full(shape, value, dtype=self.q.dtype, device=self.q.device)
        return Values(numbers, self.all_live(2 + keys))

    def all_live(self, dims: int) -> Tensor:
        return torch.ones((1,) * dims, dtype=torch.bool, device=self.q.device)

    # --- the nodes

    def rows(self, map_: Rows, part: Part | None) -> Values:
        of_keys = map_.tokens is Tokens.KEYS
        rows = self.k if of_keys else self.q
        if part is not None:
            rows = rows[:, :, part[0] : part[1]]
        if of_keys:
            rows = rows.repeat_interleave(self.attention.group_size, dim=1)
        return Values(rows, self.all_live(3))

    def logits(self, part: Part | None) -> Values:
        """The scaled products after the `score` lines."""
        start, stop = part or (0, self.q.shape[2])
        batch, heads, _, channels = self.q.shape
        group = self.attention.group_size
        shape = (batch, heads // group, group, stop - start, channels)
        queries = self.q[:, :, start:stop].reshape(shape)
        logits = (queries @ self.k.unsqueeze(2).mT * self.scale).flatten(1, 2)
        for case in self.attention.scores:
            logits = self.scored(logits, case, start)
        return Values(logits, self.all_live(4))

    def scored(self, logits: Tensor, case: ScoreCase, start: int) -> Tensor:
        """The logits [B, H, rows, n_k] with the score of some heads."""
        device, heads = self.q.device, list(case.heads)
        rows = torch.arange(logits.shape[2], device=device) + start + self.q_offset
        axes: dict[Axis, Integers] = {
            Axis.QUERY: rows[:, None],
            Axis.KEY: torch.arange(self.k.shape[2], device=device),
        }
        own = logits.unbind(1)
        every = dict(enumerate(own))
        for head in heads:  # one by one: no list of numbers goes to the device
            at = self.at({**axes, Axis.HEAD: head}, 3)
            known: dict[FloatExpr, Tensor] = {GivenValue(Given.SCORE): own[head]}
            found = numbers_at(case.score, replace(at, known=known))
            if not isinstance(found, Tensor):
                found = torch.full_like(own[head], found)
            every[head] = found.expand(own[head].shape)
        return torch.stack(list(every.values()), dim=1)

    def read(self, map_: MapAt, part: Part | None) -> Values:
        """The operand at other keys: not live where it has no such entry."""
        operand = self.values(map_.operand)
        at = self.place(map_, part)
        ranges = self.ranges(map_.operand)
        dims = 2 + len(map_.keys)
        batch, head = _leading(operand.numbers, at)
        places, inside = [batch, head], self.all_live(dims)
        for place, own in zip(map_.places, ranges, strict=True):
            index = _tensor(integers_at(place, at), at.batch) - own.first
            inside = inside & (index >= 0) & (index < own.size)
            places.append(index.clamp(0, max(own.size - 1, 0)))
        sizes = tuple(own.size for own in ranges)
        full = spread(operand, sizes, has_channels(map_.operand))
        numbers = full.numbers[tuple(places)]
        live = full.live[
            tuple(p % n for p, n in zip(places, full.live.shape, strict=True))
        ]
        return Values(numbers, live & inside)

    def binary(self, map_: MapBinary, part: Part | None) -> Values:
        lhs, rhs = (
            self.values(side, part if keys_of(side) else None)
            for side in (map_.lhs, map_.rhs)
        )
        count = len(keys_of(map_))
        sides, lives = [], []
        channels = has_channels(map_)
        for side, found in ((map_.lhs, lhs), (map_.rhs, rhs)):
            missing = count - len(keys_of(side))
            numbers, live = found.numbers, found.live
            if channels and not has_channels(side):
                numbers = numbers.unsqueeze(-1)
            for _ in range(missing):
                numbers, live = numbers.unsqueeze(2), live.unsqueeze(-1)
            sides.append(numbers)
            lives.append(live)
        return Values(operation_of(map_.op, *sides), lives[0] & lives[1])

    def product(self, map_: Product, part: Part | None) -> Values:
        own, other = len(keys_of(map_.lhs)), len(keys_of(map_.rhs))
        first = part if own else None
        lhs, rhs = self.values(map_.lhs, first), self.values(map_.rhs)
        if not own and part is not None:
            rhs = rows_of(rhs, part, other)
        lhs = clean(lhs)
        rhs = clean(rhs)
        left, right = lhs.numbers.shape[2:-1], rhs.numbers.shape[2:-1]
        a = lhs.numbers.reshape(*lhs.numbers.shape[:2], -1, lhs.numbers.shape[-1])
        b = rhs.numbers.reshape(*rhs.numbers.shape[:2], -1, rhs.numbers.shape[-1])
        product = a @ b.mT
        numbers = product.reshape(*product.shape[:2], *left, *right)
        live_left = lhs.live.reshape(*lhs.live.shape, *(1,) * other)
        shape = (*rhs.live.shape[:2], *(1,) * own, *rhs.live.shape[2:])
        return Values(numbers, live_left & rhs.live.reshape(shape))

    def count(self, map_: Count) -> Values:
        """How many members, for the keys that a selection is `per`."""
        selection = next(
            one for one in self.attention.selections if one.table == map_.selection
        )
        table = self.inputs[map_.selection]
        kept = [selection.keys.index(key) for key in map_.keys]
        others = [2 + n for n in range(len(selection.keys)) if n not in kept]
        number = table.sum(others) if others else table.to(torch.int64)
        # A table that starts at 0 may have places before the first value of a key.
        for dim, place in enumerate(kept):
            own = range_of(selection.keys[place], self.sizes, self.params)
            number = number.narrow(2 + dim, number.shape[2 + dim] - own.size, own.size)
        return Values(number.to(self.q.dtype), self.all_live(2 + len(kept)))

    def reduce(self, map_: Reduce) -> Values:
        """Entries put together by new keys, and heads after that."""
        operand, channels = map_.operand, has_channels(map_.operand)
        sizes = tuple(own.size for own in self.ranges(map_))
        shape = (*self.q.shape[:2], *sizes, *((self.q.shape[3],) if channels else ()))
        groups = Groups.empty(map_.how, shape, channels, self.q)
        own = tuple(one.size for one in self.ranges(operand))
        parts: Sequence[Part | None] = [None]
        if own and 0 not in (*own, *sizes):
            parts = list(self.parts(operand))
        for part in parts if 0 not in own else ():
            found = self.values(operand, part)
            extent = own if part is None else (part[1] - part[0], *own[1:])
            full = spread(found, extent, channels, shape[:2])
            places = self.new_places(map_, part)
            grouped(groups, full.numbers, full.live, places)
        numbers, live = of_groups(groups)
        return Values(*join_heads(groups, map_.over, self.attention, numbers, live))

    def new_places(self, map_: Reduce, part: Part | None) -> list[Tensor]:
        """Where each entry of the operand goes: an index for each new key."""
        at = self.place(map_.operand, part)
        found = []
        for expr, own in zip(map_.by, self.ranges(map_), strict=True):
            index = _tensor(integers_at(expr, at), at.batch) - own.first
            found.append(index)
        return found


def _is_by_row(map_: MapExpr) -> bool:
    """Whether some rows of a map can be computed without the others."""
    match map_:
        case Rows() | Logits() | MapValue() | MapAt():
            return True
        case Reduce() | Count() | MapNumber() | MapScale():
            return False
        case MapBinary():
            sides = (map_.lhs, map_.rhs)
            return all(_is_by_row(side) for side in sides if keys_of(side))
        case MapCall() | MapWhere() | Norm():
            return _is_by_row(map_.operand)
        case Softmax():
            return len(keys_of(map_)) > 1 and _is_by_row(map_.operand)
        case Product():
            return True
        case _:
            assert_never(map_)


def _leading(numbers: Tensor, at: Place) -> tuple[Tensor, Tensor]:
    """The batch element and the head as indices, 0 where all have the same."""
    head = at.axes[Axis.HEAD]
    assert isinstance(head, Tensor)
    return at.batch % numbers.shape[0], head % numbers.shape[1]


def _along(dim: int, dims: int) -> tuple[int, ...]:
    return tuple(-1 if place == dim else 1 for place in range(dims))


def _tensor(value: Integers, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like[:1], value)
