"""Deciding the assertions of an attention.

In: an attention after the passes. Out: for each assertion whether it holds, how that
is known, and a counterexample if it fails. Not its job: checking at run time.

Set assertions speak of the square calls: `0 <= q, k < N` with the default offset, for
every length N >= 1, and of every layer and step that the program reads. They are
decided by the same sets that the tile schedule comes from. Where a mask is not
quasi-affine a counterexample is searched for instead (`analysis.search`), and then
nothing is proved. Other run-time parameters take their defaults, and for densities the
layer and the step do too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import TypeVar, assert_never, cast

import islpy as isl

from patternc.analysis.approximate import at_least, at_most
from patternc.analysis.count import pair_count
from patternc.analysis.loops import NoLoop
from patternc.analysis.retention import excess, least_point
from patternc.analysis.search import (
    Place,
    describe_pair,
    describe_row,
    differing_pair,
    empty_row,
    search_lengths,
    step_names,
)
from patternc.analysis.sets import (
    NotAffine,
    SetBuilder,
    TooHard,
    bounded_context,
    param_id,
)
from patternc.diagnostics import Diagnostic, Severity
from patternc.ir.fold import head_classes
from patternc.ir.nodes import (
    STEPS,
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
from patternc.ir.selected import placed_params
from patternc.ir.walk import params_of, rewrite_bool, tables_of

Bound = Callable[[BoolExpr], BoolExpr]

S = TypeVar("S", AssertSets, AssertEveryRow)

PROOF_LIMIT = 4_000_000
"""isl's steps for one set assertion: a proof may take longer than a schedule."""


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
    placed = placed_params(attention)
    missing = [
        param.name
        for param in attention.params
        if param.default is None and param.name not in placed
    ]
    if missing:
        how = f"needs a default for the run-time parameter `{missing[0]}`"
        return tuple(Decision(item, None, how) for item in attention.asserts)
    fixed = _bind_defaults(attention)
    decided = (_decide(item, fixed) for item in fixed.asserts)
    return tuple(
        replace(found, assertion=item)
        for item, found in zip(attention.asserts, decided, strict=True)
    )


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
    """The attention with its run-time parameters at their defaults.

    But for the layer and the step, which stay open.
    """
    steps = tuple(param for param in attention.params if param.name in STEPS)
    # Where a plan's tables start matters no more than what is in them.
    others = {param.name: param.default or 0 for param in attention.params}
    for step in steps:
        del others[step.name]
    return replace(_bound(attention, others), params=steps)


def _bound(attention: Attention, values: Mapping[str, int]) -> Attention:
    """The attention, its set assertions too, with parameters at these values."""

    def rule(node: Expr) -> Expr:
        if isinstance(node, Param) and node.name in values:
            return Const(values[node.name])
        return node

    def bind(mask: BoolExpr) -> BoolExpr:
        return rewrite_bool(mask, rule) if params_of(mask) else mask

    asserts = tuple(
        replace(item, lhs=_side_as(item.lhs, bind), rhs=_side_as(item.rhs, bind))
        if isinstance(item, AssertSets)
        else item
        for item in attention.asserts
    )
    return replace(_masks_as(attention, bind), asserts=asserts)


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


def _bounds(attention: Attention) -> tuple[Bound, Bound]:
    """For a mask one that sees at least as much and one that sees at most as much."""
    rising = frozenset(item.name for item in attention.inputs if item.is_sorted)
    return partial(at_least, rising=rising), partial(at_most, rising=rising)


def _masks_as(attention: Attention, bound: Bound) -> Attention:
    """The attention with another mask for each of its own."""
    cases = tuple(replace(case, mask=bound(case.mask)) for case in attention.cases)
    return replace(attention, cases=cases)


def _side_as(side: PairSet, bound: Bound) -> PairSet:
    """A side of a set assertion with another pattern for its own, if it has one."""
    if side.pattern is None:
        return side
    return replace(side, pattern=bound(side.pattern))


def _proved(attention: Attention) -> str:
    every = "".join(f" and {param.name}" for param in attention.params)
    if attention.layout is None:
        return f"proved for every length{every}, exactly"
    every = every.replace(" and ", " and every ", 1)
    return f"proved for the layout's {attention.layout.size} tokens{every}, exactly"


def _reads(read: frozenset[str]) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(read))
    return f"it depends on what is in {names}: ask for it to be checked on the data"


def _builder(context: isl.Context, attention: Attention) -> SetBuilder:
    """Sets of `[N, q, k, h]`, then the layer and the step if they are read.

    The least point has the least length.
    """
    steps = (param_id(param.name) for param in attention.params)
    return SetBuilder(context, ("N", "q", "k", "h", *steps), ())


def _square(
    points: SetBuilder, attention: Attention, heads: tuple[int, ...]
) -> isl.Set:
    """All pairs of the square calls; a layout fixes their length."""
    chosen = " or ".join(f"h = {head}" for head in heads)
    facts = f"0 <= q < N and 0 <= k < N and ({chosen})"
    facts += "".join(f" and {dim} >= 0" for dim in points.dims[4:])
    if attention.layout is not None:
        facts += f" and N = {attention.layout.size}"
    return points.where(facts)


def _pairs_of(
    side: PairSet, attention: Attention, heads: tuple[int, ...], points: SetBuilder
) -> isl.Set:
    """The points of one side of a set assertion, as `_builder` orders them."""
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
    more, less = _bounds(attention)
    try:
        with bounded_context(PROOF_LIMIT) as context:
            points = _builder(context, attention)
            upper, lower = _masks_as(attention, more), _masks_as(attention, less)
            most = _pairs_of(_side_as(item.lhs, more), upper, item.heads, points)
            least = _pairs_of(_side_as(item.rhs, less), lower, item.heads, points)
            bad = most.subtract(least)
            if item.relation is Relation.EQUAL:
                lhs = _pairs_of(_side_as(item.lhs, less), lower, item.heads, points)
                rhs = _pairs_of(_side_as(item.rhs, more), upper, item.heads, points)
                bad = bad.union(rhs.subtract(lhs))
            if bad.is_empty():
                return Decision(item, True, _proved(attention))
            if read := inputs_read(item, attention):
                return Decision(item, None, _reads(read))
            length, q, k, head, *steps = least_point(bad)
    except (NotAffine, TooHard) as error:
        return _searched(item, attention, str(error), differing_pair)
    at = Place(length, dict(zip(step_names(attention), steps, strict=True)))
    found = describe_pair(item, attention, at, head, q, k)
    return Decision(item, False, "refuted, exactly", found)


def _searched(
    item: S, attention: Attention, why: str, search: Callable[[S, Attention], str]
) -> Decision:
    """What a search finds where there is no proof, for the reason `why`."""
    if inputs_read(item, attention):
        return Decision(item, None, why)
    found = search(item, attention)
    if found:
        return Decision(item, False, "refuted by a search", found)
    longest = max(search_lengths(attention), default=0)
    how = f"{why}; no counterexample up to N = {longest}"
    return Decision(item, None, how)


def _decide_rows(item: AssertEveryRow, attention: Attention) -> Decision:
    try:
        with bounded_context() as context:
            points = _builder(context, attention)
            mask = PairSet(None)
            sure = _masks_as(attention, _bounds(attention)[1])
            seen = _pairs_of(mask, sure, item.heads, points)
            square = _square(points, attention, item.heads)
            rows = square.project_out(isl.dim_type.set, 2, 1)
            empty = rows.subtract(seen.project_out(isl.dim_type.set, 2, 1))
            if empty.is_empty():
                return Decision(item, True, _proved(attention))
            if read := inputs_read(item, attention):
                return Decision(item, None, _reads(read))
            length, q, head, *steps = least_point(empty)
    except (NotAffine, TooHard) as error:
        return _searched(item, attention, str(error), empty_row)
    at = Place(length, dict(zip(step_names(attention), steps, strict=True)))
    return Decision(item, False, "refuted, exactly", describe_row(at, head, q))


def _decide_retention(item: AssertRetention, attention: Attention) -> Decision:
    bound = item.bound - (item.op is CompareOp.LT)
    length = None if attention.layout is None else attention.layout.size
    read, steps = inputs_read(item, attention), step_names(attention)
    for case in _masks_as(attention, _bounds(attention)[0]).cases:
        heads = tuple(head for head in case.heads if head in item.heads)
        if not heads:
            continue
        try:
            with bounded_context() as context:
                over = excess(
                    case.mask, heads, attention.heads, bound, context, length, steps
                )
        except (NotAffine, TooHard, NoLoop) as error:
            return Decision(item, None, str(error))
        if over is not None and read:
            return Decision(item, None, _reads(read))
        if over is not None:
            at = Place(over.length, dict(zip(steps, over.steps, strict=True)))
            found = (
                f"head {over.head} must keep more than {bound} keys when the query at "
                f"t = {over.moment} runs ({at})"
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
    defaults = {param.name: cast(int, param.default) for param in attention.params}
    at = Place(item.length, defaults)
    try:
        density = mean_density(attention, item.heads, item.length, defaults)
    except TooHard as error:
        return Decision(item, None, str(error))
    holds = density_holds(item, density)
    how = f"counted exactly: density {float(density):.6g} at {at}"
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
