"""Deciding the assertions of an attention.

In: an attention after the passes. Out: for each assertion whether it holds, how that
is known, and a counterexample if it fails. Not its job: checking at run time.

Set assertions speak of the square calls: `0 <= q, k < N` with the default offset, for
every length N >= 1. They are decided by the same sets that the tile schedule comes
from. Where a mask is not quasi-affine they are searched for a counterexample up to a
length instead, and then nothing is proved. Run-time parameters take their defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import assert_never, cast

import islpy as isl
import numpy as np

from patternc.analysis.approximate import at_least, at_most
from patternc.analysis.count import pair_count
from patternc.analysis.loops import NoLoop
from patternc.analysis.retention import excess, least_point
from patternc.analysis.sets import NotAffine, SetBuilder, TooHard, bounded_context
from patternc.diagnostics import Diagnostic, Severity
from patternc.ir.evaluate import Bools, dense_mask
from patternc.ir.fold import head_classes
from patternc.ir.nodes import (
    AssertDensity,
    AssertEveryRow,
    Assertion,
    AssertRetention,
    AssertSets,
    Attention,
    BoolExpr,
    CompareOp,
    Const,
    Expr,
    PairSet,
    Param,
    Quantifier,
    Relation,
)
from patternc.ir.walk import params_of, rewrite_bool, tables_of

SEARCH_LIMIT = 1024
"""A layout of more tokens than this is not searched."""

Bound = Callable[[BoolExpr], BoolExpr]

PROOF_LIMIT = 4_000_000
"""isl's steps for one set assertion: a proof may take longer than a schedule."""

SEARCH_LENGTH = 192
"""Up to this length a counterexample is searched for where nothing can be proved."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is known of an assertion: `holds` is None if it is neither way.

    `how` says by what means; `counterexample` names a head, a query, a key or a
    moment where it fails.
    """

    assertion: Assertion
    holds: bool | None
    how: str
    counterexample: str = ""


def decide_all(attention: Attention) -> tuple[Decision, ...]:
    """Decide every assertion of an attention."""
    missing = [param.name for param in attention.params if param.default is None]
    if missing:
        how = f"needs a default for the run-time parameter `{missing[0]}`"
        return tuple(Decision(item, None, how) for item in attention.asserts)
    fixed = _bind_defaults(attention)
    return tuple(_decide(item, fixed) for item in attention.asserts)


def diagnose(decisions: tuple[Decision, ...], attention: Attention) -> list[Diagnostic]:
    """An error for each assertion that fails, a warning for each that is open."""
    found: list[Diagnostic] = []
    for decision in decisions:
        span = decision.assertion.span
        if decision.holds is False:
            message = f"this assertion of `{attention.name}` fails"
            label = decision.counterexample
            found.append(Diagnostic("assert-failed", message, span, label))
        elif decision.holds is None:
            message = f"this assertion of `{attention.name}` was not proved"
            found.append(
                Diagnostic(
                    "assert-undecided",
                    message,
                    span,
                    decision.how,
                    severity=Severity.WARNING,
                )
            )
    return found


def _bind_defaults(attention: Attention) -> Attention:
    """The attention with its run-time parameters at their defaults."""
    values = {param.name: cast(int, param.default) for param in attention.params}

    def bind(mask: BoolExpr) -> BoolExpr:
        def rule(node: Expr) -> Expr:
            return Const(values[node.name]) if isinstance(node, Param) else node

        return rewrite_bool(mask, rule) if params_of(mask) else mask

    cases = tuple(replace(case, mask=bind(case.mask)) for case in attention.cases)
    return replace(attention, cases=cases)


def _decide(item: Assertion, attention: Attention) -> Decision:
    match item:
        case AssertSets():
            return _decide_sets(item, attention)
        case AssertEveryRow():
            return _decide_rows(item, attention)
        case AssertRetention():
            return _decide_retention(item, attention)
        case AssertDensity():
            return _decide_density(item, attention)
        case _:
            assert_never(item)


def inputs_read(item: Assertion, attention: Attention) -> frozenset[str]:
    """The inputs that an assertion depends on."""
    heads = set(item.heads)
    read = [case.mask for case in attention.cases if heads & set(case.heads)]
    if isinstance(item, AssertSets):
        sides = (item.lhs.pattern, item.rhs.pattern)
        if None not in sides:
            read = []
        read += [pattern for pattern in sides if pattern is not None]
    return frozenset().union(*(tables_of(mask) for mask in read))


def _unread(attention: Attention, bound: Bound) -> Attention:
    """The attention with every mask bounded by one that reads no input."""
    cases = tuple(replace(case, mask=bound(case.mask)) for case in attention.cases)
    return replace(attention, cases=cases)


def _unread_side(side: PairSet, bound: Bound) -> PairSet:
    if side.pattern is None:
        return side
    return replace(side, pattern=bound(side.pattern))


def _search_lengths(attention: Attention) -> tuple[int, ...]:
    """The lengths at which a counterexample is searched for."""
    if attention.layout is None:
        return (1, 2, 3, 17, 64, SEARCH_LENGTH)
    size = attention.layout.size
    return (size,) if size <= SEARCH_LIMIT else ()


def _proved(attention: Attention) -> str:
    if attention.layout is None:
        return "proved for every length, exactly"
    return f"proved for the layout's {attention.layout.size} tokens, exactly"


def _reads(read: frozenset[str]) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(read))
    return f"it depends on what is in {names}: ask for it to be checked on the data"


def _builder(context: isl.Context) -> SetBuilder:
    """Sets of `[N, q, k, h]`: the least point has the least length."""
    return SetBuilder(context, ("N", "q", "k", "h"), ())


def _square(
    points: SetBuilder, attention: Attention, heads: tuple[int, ...]
) -> isl.Set:
    """All pairs of the square calls; a layout fixes their length."""
    chosen = " or ".join(f"h = {head}" for head in heads)
    facts = f"0 <= q < N and 0 <= k < N and ({chosen})"
    if attention.layout is not None:
        facts += f" and N = {attention.layout.size}"
    return points.where(facts)


def _pairs_of(
    side: PairSet, attention: Attention, heads: tuple[int, ...], points: SetBuilder
) -> isl.Set:
    """The `[N, q, k, h]` of one side of a set assertion."""
    square = _square(points, attention, heads)
    if side.pattern is not None:
        pairs = points.set_of(side.pattern).intersect(square)
    else:
        pairs = isl.Set.empty(points.space())
        for case in attention.cases:
            mine = tuple(head for head in case.heads if head in heads)
            if mine:
                seen = points.set_of(case.mask).intersect(
                    _square(points, attention, mine)
                )
                pairs = pairs.union(seen)
    if side.quantifier is Quantifier.UNION:
        some = pairs.project_out(isl.dim_type.set, 3, 1)
        every = some.insert_dims(isl.dim_type.set, 3, 1)
        every = every.set_dim_name(isl.dim_type.set, 3, "h")
        pairs = every.intersect(square)
    return pairs.coalesce()


def _decide_sets(item: AssertSets, attention: Attention) -> Decision:
    try:
        with bounded_context(PROOF_LIMIT) as context:
            points = _builder(context)
            more, less = _unread(attention, at_least), _unread(attention, at_most)
            most = _pairs_of(_unread_side(item.lhs, at_least), more, item.heads, points)
            least = _pairs_of(_unread_side(item.rhs, at_most), less, item.heads, points)
            bad = most.subtract(least)
            if item.relation is Relation.EQUAL:
                lhs = _pairs_of(
                    _unread_side(item.lhs, at_most), less, item.heads, points
                )
                rhs = _pairs_of(
                    _unread_side(item.rhs, at_least), more, item.heads, points
                )
                bad = bad.union(rhs.subtract(lhs))
            if bad.is_empty():
                return Decision(item, True, _proved(attention))
            if read := inputs_read(item, attention):
                return Decision(item, None, _reads(read))
            length, q, k, head = least_point(bad)
    except (NotAffine, TooHard) as error:
        return _search(item, attention, str(error))
    return Decision(
        item, False, "refuted, exactly", _describe(item, attention, length, head, q, k)
    )


def _describe(
    item: AssertSets, attention: Attention, length: int, head: int, q: int, k: int
) -> str:
    """The counterexample in words; the point is looked up with the evaluator."""
    lhs = _dense(item.lhs, attention, item.heads, head, length)[q, k]
    where = f"q = {q}, k = {k}"
    either = Quantifier.UNION in (item.lhs.quantifier, item.rhs.quantifier)
    who = "some head" if either else f"head {head}"
    sides = ("the left side", "the right side")
    has, lacks = sides if lhs else sides[::-1]
    return f"{who}, {where} (N = {length}): in {has}, not in {lacks}"


def _dense(
    side: PairSet, attention: Attention, heads: tuple[int, ...], head: int, length: int
) -> Bools:
    """One side of a set assertion for one head, point by point."""

    def one(at: int) -> Bools:
        pattern = side.pattern
        mask = attention.case_of(at).mask if pattern is None else pattern
        return dense_mask(mask, at, length, length)

    if side.quantifier is Quantifier.EACH_HEAD:
        return one(head)
    return np.asarray(np.logical_or.reduce([one(at) for at in heads]))


def _search(item: AssertSets, attention: Attention, why: str) -> Decision:
    """Look for a counterexample point by point at a few lengths."""
    if inputs_read(item, attention):
        return Decision(item, None, why)
    lengths = _search_lengths(attention)
    for length in lengths:
        for head in item.heads:
            lhs = _dense(item.lhs, attention, item.heads, head, length)
            rhs = _dense(item.rhs, attention, item.heads, head, length)
            bad = lhs & ~rhs if item.relation is Relation.WITHIN else lhs != rhs
            if bad.any():
                q, k = (int(at) for at in np.argwhere(bad)[0])
                found = _describe(item, attention, length, head, q, k)
                return Decision(item, False, "refuted by a search", found)
    how = f"{why}; no counterexample up to N = {max(lengths, default=0)}"
    return Decision(item, None, how)


def _decide_rows(item: AssertEveryRow, attention: Attention) -> Decision:
    try:
        with bounded_context() as context:
            points = _builder(context)
            mask = PairSet(None)
            sure = _unread(attention, at_most)
            seen = _pairs_of(mask, sure, item.heads, points)
            square = _square(points, attention, item.heads)
            rows = square.project_out(isl.dim_type.set, 2, 1)
            empty = rows.subtract(seen.project_out(isl.dim_type.set, 2, 1))
            if empty.is_empty():
                return Decision(item, True, _proved(attention))
            if read := inputs_read(item, attention):
                return Decision(item, None, _reads(read))
            length, q, head = least_point(empty)
            found = f"head {head}, q = {q} (N = {length}): the row is empty"
            return Decision(item, False, "refuted, exactly", found)
    except (NotAffine, TooHard) as error:
        why = str(error)
        if inputs_read(item, attention):
            return Decision(item, None, why)
    lengths = _search_lengths(attention)
    for length in lengths:
        for head in item.heads:
            mask_of = dense_mask(attention.case_of(head).mask, head, length, length)
            rows_seen = mask_of.any(axis=1)
            if not rows_seen.all():
                q = int(np.argmin(rows_seen))
                found = f"head {head}, q = {q} (N = {length}): the row is empty"
                return Decision(item, False, "refuted by a search", found)
    how = f"{why}; no counterexample up to N = {max(lengths, default=0)}"
    return Decision(item, None, how)


def _decide_retention(item: AssertRetention, attention: Attention) -> Decision:
    bound = item.bound - (item.op is CompareOp.LT)
    length = None if attention.layout is None else attention.layout.size
    read = inputs_read(item, attention)
    for case in _unread(attention, at_least).cases:
        heads = tuple(head for head in case.heads if head in item.heads)
        if not heads:
            continue
        try:
            with bounded_context() as context:
                over = excess(case.mask, heads, attention.heads, bound, context, length)
        except (NotAffine, TooHard, NoLoop) as error:
            return Decision(item, None, str(error))
        if over is not None and read:
            return Decision(item, None, _reads(read))
        if over is not None:
            found = (
                f"head {over.head} must keep more than {bound} keys when the query at "
                f"t = {over.moment} runs (N = {over.length})"
            )
            return Decision(item, False, "refuted, exactly", found)
    return Decision(item, True, _proved(attention))


def mean_density(
    attention: Attention,
    heads: tuple[int, ...],
    length: int,
    params: Mapping[str, int],
) -> Fraction:
    """Visible pairs over all pairs at N = length, the mean over `heads`, exactly.

    Raises `TooHard` where pairs would have to be counted one by one and are too many.
    """
    total = 0
    for case in attention.cases:
        mine = [head for head in case.heads if head in heads]
        if mine:
            counter = pair_count(case.mask, attention.heads)
            for same in head_classes(case.mask, mine):
                total += len(same) * counter.at(same[0], length, params)
    return Fraction(total, len(heads) * length * length)


def _decide_density(item: AssertDensity, attention: Attention) -> Decision:
    if read := inputs_read(item, attention):
        return Decision(item, None, _reads(read))
    try:
        density = mean_density(attention, item.heads, item.length, {})
    except TooHard as error:
        return Decision(item, None, str(error))
    holds = density_holds(item, density)
    how = f"counted exactly: density {float(density):.6g} at N = {item.length}"
    return Decision(item, holds, how, "" if holds else how.removeprefix("counted "))


def density_holds(item: AssertDensity, density: Fraction) -> bool:
    """Whether a density is on the right side of the bound."""
    bound = Fraction(item.numerator, item.denominator)
    return {
        CompareOp.LT: density < bound,
        CompareOp.LE: density <= bound,
        CompareOp.GT: density > bound,
        CompareOp.GE: density >= bound,
        CompareOp.EQ: density == bound,
        CompareOp.NE: density != bound,
    }[item.op]
