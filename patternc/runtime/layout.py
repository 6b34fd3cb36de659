"""Where a kernel expects each of its parameters.

In: the arguments of a variant. Out: `Slot`s, as the machine code has them. Not its job:
values (`packing`).

A pointer has 8 bytes, a number its own, each at a multiple of its size. A descriptor is
a tensor map of 128 bytes at a multiple of 64, then the tensor's sizes as int32 and its
strides as int64. Two pointers to scratch follow, which no kernel of ours uses: zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .manifest import Argument

MAP_BYTES, MAP_ALIGNMENT = 128, 64

_NUMBERS = {"i32": ("i", 4), "i64": ("q", 8), "fp32": ("f", 4)}

SCRATCH = ("global_scratch", "profile_scratch")


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter: its argument, place and size in bytes, and `struct`'s letters."""

    argument: str
    offset: int
    size: int
    code: str


def slots_of(arguments: Sequence[Argument]) -> tuple[Slot, ...]:
    """Every parameter of a kernel, in order."""
    found: list[Slot] = []
    end = 0
    for name, code, size, alignment in _parameters(arguments):
        offset = -(-end // alignment) * alignment
        found.append(Slot(name, offset, size, code))
        end = offset + size
    return tuple(found)


def format_of(slots: Sequence[Slot]) -> str:
    """All slots as one format of `struct`, with the gaps between them."""
    parts, end = ["<"], 0
    for slot in slots:
        parts.append(f"{slot.offset - end}x" if slot.offset > end else "")
        parts.append(slot.code)
        end = slot.offset + slot.size
    return "".join(parts)


def _parameters(arguments: Sequence[Argument]) -> Iterator[tuple[str, str, int, int]]:
    for argument in arguments:
        if argument.kind == "pointer":
            yield argument.name, "Q", 8, 8
        elif argument.kind == "descriptor":
            assert argument.tile is not None
            yield argument.name, f"{MAP_BYTES}s", MAP_BYTES, MAP_ALIGNMENT
            for _ in argument.tile.block:
                yield argument.name, "i", 4, 4
            for _ in argument.tile.block:
                yield argument.name, "q", 8, 8
        elif argument.kind != "nothing":
            code, size = _NUMBERS[argument.kind]
            yield argument.name, code, size, size
    for name in SCRATCH:
        yield name, "Q", 8, 8
