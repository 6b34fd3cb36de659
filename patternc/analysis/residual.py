"""What a PARTIAL tile must still test.

In: a mask and the set of pairs that can be met (all pairs of the tiles of one range).
Out: the mask less the terms that are always true or always false there. Not its job:
a smallest formula: terms stay as the user wrote them, so that a generated kernel can
be read beside its `.pat` line.
"""

from __future__ import annotations

from dataclasses import replace

import islpy as isl

from patternc.analysis.sets import SetBuilder
from patternc.ir.nodes import EMPTY_PATTERN, FULL_PATTERN, All, Any, BoolExpr, Not


def residual_in(mask: BoolExpr, inside: isl.Set, builder: SetBuilder) -> BoolExpr:
    """An expression that equals `mask` at every point of `inside`."""
    visible = builder.set_of(mask)
    if inside.is_subset(visible):
        return FULL_PATTERN
    if inside.is_disjoint(visible):
        return EMPTY_PATTERN
    match mask:
        case Not():
            return Not(residual_in(mask.term, inside, builder), mask.span)
        case All():
            return _residual_all(mask, inside, builder)
        case Any():
            return _residual_any(mask, inside, builder)
        case _:
            return mask


def _residual_all(mask: All, inside: isl.Set, builder: SetBuilder) -> BoolExpr:
    """Drop the terms that the others imply, then look into each term that stays."""
    kept = list(mask.terms)
    sets = [builder.set_of(term) for term in kept]
    for at in reversed(range(len(kept))):  # later terms are dropped first
        rest = inside
        for other in range(len(kept)):
            if other != at:
                rest = rest.intersect(sets[other])
        if rest.is_subset(sets[at]):
            del kept[at], sets[at]
    terms: list[BoolExpr] = []
    for at, term in enumerate(kept):
        rest = inside
        for other in range(len(kept)):
            if other < at:
                rest = rest.intersect(sets[other])
        terms.append(residual_in(term, rest, builder))
    return terms[0] if len(terms) == 1 else replace(mask, terms=tuple(terms))


def _residual_any(mask: Any, inside: isl.Set, builder: SetBuilder) -> BoolExpr:
    """Drop the terms that the others cover, then look into each term that stays."""
    kept = list(mask.terms)
    sets = [builder.set_of(term) for term in kept]
    for at in reversed(range(len(kept))):
        rest = inside
        for other in range(len(kept)):
            if other != at:
                rest = rest.subtract(sets[other])
        if rest.is_disjoint(sets[at]):
            del kept[at], sets[at]
    terms = [residual_in(term, inside, builder) for term in kept]
    return terms[0] if len(terms) == 1 else replace(mask, terms=tuple(terms))
