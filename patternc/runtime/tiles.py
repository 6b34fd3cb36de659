"""Which tiles the heads of a package visit.

In: nothing. Out: dataclasses of the manifest: ranges as formulas, and lists that are
stored. Not its job: lists that follow data (`data`), counting tiles (`steps`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .formula import Formula, check

ELEMENTS = {
    "bf16": 2,
    "fp16": 2,
    "fp32": 4,
    "fp64": 8,
    "i8": 1,
    "i16": 2,
    "i32": 4,
    "i64": 8,
}
"""Bytes of an element by its type's word."""

LARGEST = 2**30
"""The greatest length, block and run-time parameter."""


@dataclass(frozen=True, slots=True)
class Steps:
    """One range of key tiles: `range(lo, min(hi, tiles), step)` where `guard` holds."""

    lo: Formula
    hi: Formula
    step: int
    guard: Formula

    def __post_init__(self) -> None:
        check(1 <= self.step <= LARGEST, "a step that is none")


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """Heads that visit the same tiles; `ranges` is None where these are listed."""

    first_head: int
    ranges: tuple[Steps, ...] | None


@dataclass(frozen=True, slots=True)
class Array:
    """A tensor in a blob, little-endian."""

    element: str
    shape: tuple[int, ...]
    blob: int

    def __post_init__(self) -> None:
        check(self.element in ("i32", "i64"), "an array of no integers")
        check(len(self.shape) <= 5, "an array of too many axes")
        check(all(0 <= size <= LARGEST for size in self.shape), "an absurd array")
        check(self.blob >= 0, "no number of a blob")

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * ELEMENTS[self.element]


@dataclass(frozen=True, slots=True)
class Lists:
    """The listed tiles of calls with `length` queries and keys, and turned round.

    As the generated module's `tile_lists` and `reversed_lists` give them; `turned` is
    empty in a package without gradients.
    """

    length: int
    forward: tuple[Array, ...]
    turned: tuple[Array, ...]
