"""How many values a key has in a call, from the least one on.

In: the keys of maps, and the sizes of a call. Out: for each key its least value and
their number, from bounds alone, so that nothing is asked of a device. Not its job: which
of these values really occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patternc.analysis.interval import Box, bounds_of, python_bounds
from patternc.ir.nodes import Axis, IntExpr
from patternc.ir.selection import (
    Selection,
)
from patternc.ir.text import print_expr

MOST_KEYS = 2**31
"""Values of one key, and entries of one table for one head."""


@dataclass(frozen=True, slots=True)
class CallSizes:
    """The positions of a call: queries from `q_offset` on, keys from 0 on."""

    n_q: int
    n_k: int
    q_offset: int


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The values `first` to `first + size - 1`."""

    first: int
    size: int


def range_of(key: IntExpr, sizes: CallSizes, params: Mapping[str, int]) -> KeyRange:
    """The values that a key may have in a call.

    Raises `ValueError` for a key that nothing bounds, such as an input by itself.
    """
    if sizes.n_q <= 0 or sizes.n_k <= 0:
        return KeyRange(0, 0)
    last = sizes.q_offset + sizes.n_q - 1
    axes = {
        Axis.QUERY: python_bounds(sizes.q_offset, last),
        Axis.KEY: python_bounds(0, sizes.n_k - 1),
        Axis.LENGTH: python_bounds(sizes.n_k, sizes.n_k),
    }
    known = {name: python_bounds(value, value) for name, value in params.items()}
    elements = python_bounds(-(2**31), 2**31 - 1)
    found = bounds_of(key, Box(axes, known, lambda read, at: elements))
    first, end = int(found.lo), int(found.hi) + 1
    if end - first > MOST_KEYS:
        raise ValueError(
            f"the key `{print_expr(key)}` may have {end - first} values: bound it, as in"
            " `label[k] % 64`"
        )
    return KeyRange(first, end - first)


def selection_ranges(
    selection: Selection, sizes: CallSizes, params: Mapping[str, int]
) -> tuple[KeyRange, ...]:
    """The range of each key of a selection's table; one that starts at 0 does so."""
    found = candidate_ranges(selection, sizes, params)
    if selection.reach == 1 or not found[0].size:
        return found
    (own,) = found
    more = selection.reach - 1
    return (KeyRange(own.first - more, own.size + more),)


def candidate_ranges(
    selection: Selection, sizes: CallSizes, params: Mapping[str, int]
) -> tuple[KeyRange, ...]:
    """The range of each key that may be chosen."""
    found = []
    for starts_at_0, key in zip(selection.starts_at_0, selection.keys, strict=True):
        own = range_of(key, sizes, params)
        if starts_at_0 and own.size:
            own = KeyRange(0, own.first + own.size)
        found.append(own)
    return tuple(found)


def places_of(
    selections: Sequence[Selection], sizes: CallSizes, params: Mapping[str, int]
) -> dict[str, int]:
    """The parameters that say where the keys of the tables are, by name."""
    found = {}
    for selection in selections:
        ranges = selection_ranges(selection, sizes, params)
        for place, own in enumerate(ranges):
            if selection.first(place):
                found[selection.first(place)] = own.first
            found[selection.size(place)] = own.size
    return found
