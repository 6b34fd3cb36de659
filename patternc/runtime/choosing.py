"""What a package knows of the work that choosing keys takes.

In: nothing. Out: dataclasses of the manifest; making one checks its bounds. Not its job:
what a call takes (`cheaper`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .formula import Formula, check
from .prices import Choosing

Amount = Formula | float | None
"""A number of the program, or what computes it; None if only data decide."""

_KINDS = ("lines", "blocks", "tiles")


@dataclass(frozen=True, slots=True)
class ChosenTable:
    """A selection: how many values each key has, of "q_offset", "last" and "n_k".

    `scope` numbers the keys that a scope has; a selection that has all has one for each
    head. `amount`, `least` and `most` are of "n_k" and run-time parameters.
    """

    sizes: tuple[Formula, ...]
    scope: tuple[int, ...]
    amount: Amount
    least: Amount
    most: Amount

    def __post_init__(self) -> None:
        check(len(self.sizes) in (1, 2), "a selection of no key")
        check(all(0 <= x < len(self.sizes) for x in self.scope), "a scope of no key")
        for amount in (self.amount, self.least, self.most):
            is_number = isinstance(amount, float)
            check(not is_number or math.isfinite(amount), "an amount that is none")  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Live:
    """A condition on the entries of an estimate, of keys "e_0" and "e_1".

    It says where rows begin if there is a `first`; None as a condition is one that can't
    be sampled.
    """

    first: Formula | None
    condition: Formula | None


@dataclass(frozen=True, slots=True)
class Scored:
    """Entries that are computed, of map number `node`: products of as many rows as
    `sizes` say, or the pairs of a call for which all of `lives` hold.
    """

    node: int
    sizes: tuple[Formula, ...]
    lives: tuple[Live, ...]

    def __post_init__(self) -> None:
        check(len(self.sizes) <= 2, "entries of too many keys")


@dataclass(frozen=True, slots=True)
class MaskCase:
    """The mask of some heads, of "q", "k", "h", "n_k" and run-time parameters.

    "drawn_0" and so on stand for what is chosen, by the number of the table. `kind` says
    how chosen pairs are visited: "lines", "blocks" or "tiles"; `head` is one of the heads.
    """

    kind: str
    heads: int
    head: int
    mask: Formula

    def __post_init__(self) -> None:
        check(self.kind in _KINDS, f"pairs of kind {self.kind!r}")
        check(1 <= self.heads <= 2**16 and 0 <= self.head < 2**16, "no number of heads")


@dataclass(frozen=True, slots=True)
class ChoosingFacts:
    """The work of choosing, by the sizes of a call, and what it takes on a device.

    `tables` are in the order of their names, `dense` are the masks if nothing is chosen.
    """

    times: Choosing
    tables: tuple[ChosenTable, ...]
    scored: tuple[Scored, ...]
    cases: tuple[MaskCase, ...]
    dense: tuple[MaskCase, ...]

    def __post_init__(self) -> None:
        own = self.times
        numbers = [own.launches_ms, own.dense_ps, own.scored_ps, own.ranked_ps]
        numbers += [own.alone_ps, own.line_ps, own.block_ps, own.tile_ps]
        is_right = all(math.isfinite(x) and 0 <= x <= 1e12 for x in numbers)
        check(is_right, "a time that is none")
        check(bool(self.tables and self.cases and self.dense), "a choice of nothing")
