"""What holds of a mask whatever its inputs hold.

In: a mask that reads inputs. Out: a mask that reads none and sees at least, or at
most, the same pairs. Not its job: bounds of an input's values (`analysis.interval`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from patternc.ir.nodes import All, Any, BoolExpr, Compare, Not, Truth
from patternc.ir.walk import tables_of


def at_least(mask: BoolExpr) -> BoolExpr:
    """A mask without reads that holds wherever `mask` does, for any inputs."""
    return _reads_as(mask, True)


def at_most(mask: BoolExpr) -> BoolExpr:
    """A mask without reads that holds only where `mask` does, for any inputs."""
    return _reads_as(mask, False)


def _reads_as(mask: BoolExpr, value: bool) -> BoolExpr:
    """Comparisons that read become `value`; under `~` the other value is safe."""
    match mask:
        case Truth():
            return mask
        case Compare():
            return Truth(value, mask.span) if tables_of(mask) else mask
        case Not():
            return replace(mask, term=_reads_as(mask.term, not value))
        case All() | Any():
            terms = tuple(_reads_as(term, value) for term in mask.terms)
            return replace(mask, terms=terms)
        case _:
            assert_never(mask)
