"""Head grouping. In: an attention. Out: the same meaning, one case a head group.

Heads with one mask, one order and one way of weighing share one loop nest. The masks
may differ in what they read of `h`, and in numbers: where `window(64)`, `window(96)` and
`window(128)` belong to heads 0, 1 and 2, the number becomes `32 * h + 64`. Not its job:
finding that two masks that look different are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from patternc.ir.nodes import (
    HEAD,
    Attention,
    Binary,
    BoolExpr,
    Const,
    Expr,
    FloatExpr,
    HeadCase,
    IntExpr,
    IntOp,
    TokenOrder,
    WeightKind,
)
from patternc.ir.text import print_expr, print_heads
from patternc.ir.walk import children, rewrite_bool, subexpressions


@dataclass(frozen=True, slots=True)
class _Manner:
    """All that a kernel does beside the mask: heads of two manners stay apart."""

    order: tuple[tuple[str | None, TokenOrder], ...]
    score: FloatExpr | None
    weights: tuple[WeightKind, float] | None
    sink: FloatExpr | None
    output: FloatExpr | None
    is_skipped: bool


@dataclass(frozen=True)
class GroupHeads:
    """Merge the cases that share a loop nest; drop the cases that have no head."""

    name: ClassVar[str] = "group-heads"

    def __call__(self, attention: Attention) -> Attention:
        """One case for each loop nest, in the order of first appearance."""
        groups = _equal(attention, attention.cases)
        while True:  # a number that came to depend on `h` may make two masks equal
            merged = _equal(attention, _in_step(attention, groups))
            if merged == groups:
                return replace(attention, cases=groups)
            groups = merged

    def notes(self, attention: Attention) -> tuple[str, ...]:
        """How many loop nests there are, and the masks that were merged by a number."""
        after = self(attention)
        written = {case.mask for case in attention.cases}
        loop_nests = _count(len(after.cases), "loop nest")
        lines = [f"{_count(attention.heads, 'head')} in {loop_nests}"]
        for case in after.cases:
            if case.mask not in written:
                heads = f"heads {print_heads(case.heads)}"
                lines.append(f"{heads} differ in a number: {print_expr(case.mask)}")
        return tuple(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _manner(attention: Attention, head: int) -> _Manner:
    orders = [case for case in attention.orders if head in case.heads]
    scores = [case.score for case in attention.scores if head in case.heads]
    weights = [case for case in attention.weights if head in case.heads]
    sinks = [case.logit for case in attention.sinks if head in case.heads]
    outputs = [case.output for case in attention.outputs if head in case.heads]
    return _Manner(
        tuple((case.segment, case.order) for case in orders),
        scores[0] if scores else None,
        (weights[0].kind, weights[0].argument) if weights else None,
        sinks[0] if sinks else None,
        outputs[0] if outputs else None,
        head in attention.skipped,
    )


def _equal(attention: Attention, cases: tuple[HeadCase, ...]) -> tuple[HeadCase, ...]:
    """One case for the heads with one mask and one manner."""
    groups: dict[tuple[BoolExpr, _Manner], HeadCase] = {}
    for case in cases:
        for head in case.heads:
            key = (case.mask, _manner(attention, head))
            known = groups.get(key, replace(case, heads=()))
            groups[key] = replace(known, heads=tuple(sorted({*known.heads, head})))
    return tuple(groups.values())


def _in_step(attention: Attention, cases: tuple[HeadCase, ...]) -> tuple[HeadCase, ...]:
    """Merge the cases whose masks differ in numbers that are affine in the head."""
    families: dict[tuple[BoolExpr, _Manner], list[HeadCase]] = {}
    for case in cases:
        key = (_without_numbers(case.mask), _manner(attention, case.heads[0]))
        families.setdefault(key, []).append(case)
    found: list[HeadCase] = []
    for family in families.values():
        merged = _merged(family) if len(family) > 1 else None
        found += [merged] if merged is not None else family
    return tuple(sorted(found, key=lambda case: cases.index(_first_of(case, cases))))


def _first_of(case: HeadCase, cases: tuple[HeadCase, ...]) -> HeadCase:
    """The first of `cases` that shares a head with `case`."""
    return next(one for one in cases if set(one.heads) & set(case.heads))


def _without_numbers(mask: BoolExpr) -> BoolExpr:
    """The mask with every number at 0: equal for masks that differ in numbers only."""
    return rewrite_bool(
        mask, lambda node: Const(0) if isinstance(node, Const) else node
    )


def _merged(family: list[HeadCase]) -> HeadCase | None:
    """One case for all, or None where a number is no affine function of the head.

    A number that divides or multiplies must be the same everywhere: with the head in
    its place the mask would no longer be affine.
    """
    numbers = [_numbers(case.mask) for case in family]
    rigid = list(_rigid(family[0].mask))
    replaced: list[IntExpr] = []
    for place, values in enumerate(zip(*numbers, strict=True)):
        if len(set(values)) == 1:
            replaced.append(Const(values[0]))
            continue
        line = None if rigid[place] else _line(family, values)
        if line is None:
            return None
        replaced.append(line)
    heads = sorted(head for case in family for head in case.heads)
    mask = _with_numbers(family[0].mask, replaced)
    return replace(family[0], heads=tuple(heads), mask=mask)


def _line(family: list[HeadCase], values: tuple[int, ...]) -> IntExpr | None:
    """`slope * h + start` through the value of each head, or None."""
    points = {
        head: value
        for case, value in zip(family, values, strict=True)
        for head in case.heads
    }
    first, last = min(points), max(points)
    if first == last or (points[last] - points[first]) % (last - first):
        return None
    slope = (points[last] - points[first]) // (last - first)
    start = points[first] - slope * first
    if any(value != slope * head + start for head, value in points.items()):
        return None
    term: IntExpr = HEAD if slope == 1 else Binary(IntOp.MUL, Const(slope), HEAD)
    if start == 0:
        return term
    op = IntOp.ADD if start > 0 else IntOp.SUB
    return Binary(op, term, Const(abs(start)))


def _numbers(mask: BoolExpr) -> list[int]:
    """The numbers of a mask, parents first, left to right."""
    return [node.value for node in subexpressions(mask) if isinstance(node, Const)]


def _rigid(expr: Expr, is_rigid: bool = False) -> Iterator[bool]:
    """For each number of `_numbers` whether it must not depend on the head."""
    if isinstance(expr, Const):
        yield is_rigid
    for at, child in enumerate(children(expr)):
        rigid = is_rigid
        if isinstance(expr, Binary):
            divides = expr.op in (IntOp.FLOORDIV, IntOp.MOD) and at == 1
            rigid = is_rigid or divides or expr.op is IntOp.MUL
        yield from _rigid(child, rigid)


def _with_numbers(mask: BoolExpr, numbers: list[IntExpr]) -> BoolExpr:
    """The mask with the numbers of `_numbers` replaced, each by one of `numbers`."""
    remaining = iter(numbers)

    # `rewrite` visits leaves left to right, which is the order of `_numbers` for leaves.
    def rule(node: Expr) -> Expr:
        return next(remaining) if isinstance(node, Const) else node

    return rewrite_bool(mask, rule)
