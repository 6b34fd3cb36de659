"""What only the data of a call can decide: open assertions, and lengths of segments.

In: what the compiler could not decide, the sizes of a call, its inputs. Out: the first
thing that fails there, in words. Not its job: proofs (`analysis.prove`), checking
the inputs themselves (`backends.checks`). It holds one dense mask at a time, n_q x n_k:
it is for debugging a program's data, not for every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

import numpy as np

from patternc.analysis.prove import Decision, density_holds
from patternc.ir.evaluate import Bools, Tables, dense_mask
from patternc.ir.nodes import (
    AssertDensity,
    AssertEveryRow,
    Assertion,
    AssertRetention,
    AssertSets,
    Attention,
    BoolExpr,
    PairSet,
    Quantifier,
    Relation,
)


@dataclass(frozen=True, slots=True)
class CallPairs:
    """The pairs of a call: rows from `q_offset` on, keys from 0 on, one batch element.

    `tables` are its inputs that are not floating, without a batch axis.
    """

    n_q: int
    n_k: int
    q_offset: int
    params: Mapping[str, int]
    tables: Tables


def wrong_length(attention: Attention, call: CallPairs) -> str | None:
    """Which `valid` length of a segment is no number of its tokens; None if none is."""
    for segment in () if attention.layout is None else attention.layout.segments:
        if not segment.valid:
            continue
        given = call.params if segment.valid in call.params else call.tables
        value = int(given[segment.valid])
        if not 0 <= value <= segment.size:
            expected = f"expected 0 to {segment.size} tokens of `{segment.name}`"
            return f"`{segment.valid}`: {expected}, got {value}"
    return None


def failing_assert(
    attention: Attention,
    decisions: Sequence[Decision],
    call: CallPairs,
) -> str | None:
    """Which undecided assertion fails in a call, where and why; None if none does.

    Rows without keys, set relations and the density are looked at. What a decoder must
    retain is not a matter of one call: such assertions stay undecided.
    """
    for decision in decisions:
        if decision.holds is None and can_be_checked(decision.assertion):
            found = _failure(decision.assertion, attention, call)
            if found:
                span = decision.assertion.span
                line, column = span.source.line_and_column(span.start)
                place = f"{span.source.name}:{line}:{column}"
                return f"the assertion at {place} fails for this call: {found}"
    return None


def can_be_checked(item: Assertion) -> bool:
    """Whether one call can tell that an assertion fails there: retention it can't."""
    return not isinstance(item, AssertRetention)


def _failure(item: Assertion, attention: Attention, call: CallPairs) -> str:
    """Where it fails, or nothing."""
    match item:
        case AssertSets():
            return _sets_failure(item, attention, call)
        case AssertEveryRow():
            for head in item.heads:
                seen = _mask(attention.case_of(head).mask, head, call).any(axis=1)
                if not seen.all():
                    q = int(np.argmin(seen)) + call.q_offset
                    return f"head {head}, q = {q}: the row is empty"
            return ""
        case AssertRetention():
            return ""
        case AssertDensity():
            return _density_failure(item, attention, call)
        case _:
            assert_never(item)


def _sets_failure(item: AssertSets, attention: Attention, call: CallPairs) -> str:
    for head in item.heads:
        lhs = _side(item.lhs, item.heads, head, attention, call)
        rhs = _side(item.rhs, item.heads, head, attention, call)
        bad = lhs & ~rhs if item.relation is Relation.WITHIN else lhs != rhs
        if bad.any():
            row, k = (int(at) for at in np.argwhere(bad)[0])
            has, lacks = ("left", "right") if lhs[row, k] else ("right", "left")
            where = f"head {head}, q = {row + call.q_offset}, k = {k}"
            return f"{where}: in the {has} side, not in the {lacks} one"
    return ""


def _side(
    side: PairSet,
    heads: tuple[int, ...],
    head: int,
    attention: Attention,
    call: CallPairs,
) -> Bools:
    """One side of a set assertion for one head; a union holds the pairs of all."""
    own = heads if side.quantifier is Quantifier.UNION else (head,)
    masks = (_mask(side.pattern or attention.case_of(at).mask, at, call) for at in own)
    return np.asarray(np.logical_or.reduce(list(masks)))


def _density_failure(item: AssertDensity, attention: Attention, call: CallPairs) -> str:
    pairs = len(item.heads) * call.n_q * call.n_k
    if not pairs:
        return ""
    masks = (_mask(attention.case_of(head).mask, head, call) for head in item.heads)
    density = Fraction(sum(int(np.count_nonzero(mask)) for mask in masks), pairs)
    if density_holds(item, density):
        return ""
    return f"density {float(density):.6g} of {call.n_q} x {call.n_k} pairs"


def _mask(pattern: BoolExpr, head: int, call: CallPairs) -> Bools:
    """The pattern's pairs for one head, [n_q, n_k]."""
    return dense_mask(
        pattern, head, call.n_q, call.n_k, call.q_offset, call.params, call.tables
    )
