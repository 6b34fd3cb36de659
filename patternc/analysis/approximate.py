"""What holds of a mask whatever its inputs hold.

In: a mask that reads inputs. Out: a mask that reads none and sees at least, or at
most, the same pairs. Not its job: bounds of an input's values (`analysis.interval`).

Of the values nothing is known but that an element is equal to itself, and that those of
a sorted input never fall along its last axis: `doc[q] == doc[k]` holds at least where
q == k, and `doc[k] <= doc[q]` where k <= q.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import assert_never

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)
from patternc.ir.walk import tables_of

Names = Collection[str]


def at_least(mask: BoolExpr, rising: Names = frozenset()) -> BoolExpr:
    """A mask without reads that holds wherever `mask` does, for any inputs.

    The inputs called `rising` are sorted.
    """
    return _reads_as(mask, True, rising)


def at_most(mask: BoolExpr, rising: Names = frozenset()) -> BoolExpr:
    """A mask without reads that holds only where `mask` does, for any inputs.

    The inputs called `rising` are sorted.
    """
    return _reads_as(mask, False, rising)


def _reads_as(mask: BoolExpr, value: bool, rising: Names) -> BoolExpr:
    """Comparisons that read become `value` but where they are known to be otherwise.

    Under `~` the other value is safe.
    """
    match mask:
        case Truth():
            return mask
        case Compare():
            return _comparison_as(mask, value, rising) if tables_of(mask) else mask
        case Not():
            return replace(mask, term=_reads_as(mask.term, not value, rising))
        case All() | Any():
            terms = tuple(_reads_as(term, value, rising) for term in mask.terms)
            return replace(mask, terms=terms)
        case _:
            assert_never(mask)


_REFLEXIVE = (CompareOp.EQ, CompareOp.LE, CompareOp.GE)
"""The comparisons of a number with itself that hold; the others don't."""


_AS_INDICES = {
    CompareOp.EQ: CompareOp.EQ,
    CompareOp.NE: CompareOp.EQ,
    CompareOp.LE: CompareOp.LE,
    CompareOp.GT: CompareOp.LE,
    CompareOp.GE: CompareOp.GE,
    CompareOp.LT: CompareOp.GE,
}
"""How indices compare where elements of a sorted input are known to hold, or not."""


def _comparison_as(mask: Compare, value: bool, rising: Names) -> BoolExpr:
    """`value`, but where the comparison is known to be otherwise."""
    known = _known(mask, rising)
    if known is None or (mask.op in _REFLEXIVE) is value:
        return Truth(value, mask.span)
    return Not(known, mask.span) if value else known


def _known(mask: Compare, rising: Names) -> BoolExpr | None:
    """Where two elements of one input compare as a number with itself would.

    None if that can't be told.
    """
    match mask:
        case Compare(lhs=Read() as lhs, rhs=Read() as rhs) if lhs.table == rhs.table:
            indices = list(zip(lhs.indices, rhs.indices, strict=True))
            if not all(_is_affine(a) and _is_affine(b) for a, b in indices):
                return None
            ops = [CompareOp.EQ] * len(indices)
            if lhs.table in rising:
                ops[-1] = _AS_INDICES[mask.op]
            terms = (
                Compare(op, a, b, mask.span)
                for op, (a, b) in zip(ops, indices, strict=True)
            )
            return All(tuple(terms), mask.span)
        case _:
            return None


def _is_affine(expr: IntExpr) -> bool:
    """Whether the exact sets (`analysis.sets`) can express it, at first sight."""
    match expr:
        case Const() | Index() | Param():
            return True
        case Read():
            return False
        case Abs():
            return _is_affine(expr.operand)
        case Binary(op=IntOp.FLOORDIV | IntOp.MOD):
            return _is_affine(expr.lhs) and isinstance(expr.rhs, Const)
        case Binary(op=IntOp.MUL):
            number = isinstance(expr.lhs, Const) or isinstance(expr.rhs, Const)
            return number and _is_affine(expr.lhs) and _is_affine(expr.rhs)
        case Binary():
            return _is_affine(expr.lhs) and _is_affine(expr.rhs)
        case _:
            assert_never(expr)
