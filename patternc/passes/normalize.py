"""One form for every mask. In: an attention. Out: the same meaning, normalised.

`~` stands in front of nothing but comparisons, where it turns the sign; `&` and `|`
are flat and hold no term twice. Not its job: the order of terms, which stays as the
user wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, assert_never

from patternc.ir.nodes import (
    All,
    Any,
    Attention,
    BoolExpr,
    Compare,
    CompareOp,
    Not,
    Truth,
)

_NEGATED = {
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.LE: CompareOp.GT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
}


@dataclass(frozen=True)
class Normalize:
    """Push `~` to the leaves, flatten `&` and `|`, drop repeated terms."""

    name: ClassVar[str] = "normalize"

    def __call__(self, attention: Attention) -> Attention:
        """Normalise the mask of every case."""
        cases = tuple(
            replace(case, mask=normalize(case.mask)) for case in attention.cases
        )
        return replace(attention, cases=cases)

    def notes(self, attention: Attention) -> tuple[str, ...]:
        """Nothing: what it writes is seen in the masks."""
        return ()


def normalize(expr: BoolExpr, negated: bool = False) -> BoolExpr:
    """`expr`, or its complement, in normal form."""
    match expr:
        case Truth():
            return replace(expr, value=expr.value != negated)
        case Compare():
            return replace(expr, op=_NEGATED[expr.op]) if negated else expr
        case Not():
            return normalize(expr.term, not negated)
        case All() | Any():
            terms = [normalize(term, negated) for term in expr.terms]
            conjunction = isinstance(expr, All) != negated
            return _join(All if conjunction else Any, terms, expr)
        case _:
            assert_never(expr)


def _join(kind: type[All | Any], terms: list[BoolExpr], written: All | Any) -> BoolExpr:
    flat: dict[BoolExpr, None] = {}  # keeps the first of equal terms, in order
    for term in terms:
        inner = term.terms if isinstance(term, kind) else (term,)
        flat.update(dict.fromkeys(inner))
    if len(flat) == 1:
        return next(iter(flat))
    return kind(tuple(flat), written.span)
