"""Expressions as formulas of a package.

In: expressions of a schedule's ranges, of masks and of plans. Out: `Formula`s in reverse
Polish notation, as `patternc.runtime` evaluates them. Not its job: the text of a
generated module (`expr`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    Compare,
    Const,
    Expr,
    Index,
    Not,
    Param,
    Read,
    Truth,
)
from patternc.plan.kernel import Kernel, KeyRange, TileCover
from patternc.runtime.formula import Formula
from patternc.runtime.tiles import HeadGroup, Steps

Token = int | str

NAMES = {
    Axis.QUERY: "q",
    Axis.KEY: "k",
    Axis.FIRST: "e_0",
    Axis.SECOND: "e_1",
    Axis.QUERY_TILE: "qt",
    Axis.HEAD: "h",
    Axis.LENGTH: "n_k",
}


def head_groups(kernel: Kernel) -> tuple[HeadGroup, ...]:
    """What the launcher knows of each head group's tiles."""
    return tuple(_group(cover) for cover in kernel.covers)


def _group(cover: TileCover) -> HeadGroup:
    ranges = None if cover.ranges is None else tuple(map(_steps, cover.ranges))
    return HeadGroup(min(cover.heads), ranges)


def _steps(part: KeyRange) -> Steps:
    return Steps(formula(part.lo), formula(part.hi), part.step, formula(part.guard))


def formula(expr: Expr, own: Mapping[Expr, str] | None = None) -> Formula:
    """An expression of axes, run-time parameters and elements of inputs.

    `own` are subexpressions that have names.
    """
    return Formula(tuple(_tokens(expr, own or {})))


def _tokens(expr: Expr, own: Mapping[Expr, str]) -> list[Token]:
    if expr in own:
        return [own[expr]]
    match expr:
        case Const():
            return [expr.value]
        case Truth():
            return [int(expr.value)]
        case Index():
            return [NAMES[expr.axis]]
        case Param():
            return [f"p_{expr.name}"]
        case Binary() | Compare():
            return [*_tokens(expr.lhs, own), *_tokens(expr.rhs, own), expr.op.value]
        case Abs():
            return [*_tokens(expr.operand, own), "abs"]
        case All():
            return _joined(expr.terms, "and", own)
        case Any():
            return _joined(expr.terms, "or", own)
        case Not():
            return [*_tokens(expr.term, own), "not"]
        case Read():
            places = [token for index in expr.indices for token in _tokens(index, own)]
            return [*places, f"read {len(expr.indices)} {expr.table}"]
        case _:
            assert_never(expr)


def _joined(terms: tuple[Expr, ...], word: str, own: Mapping[Expr, str]) -> list[Token]:
    if not terms:
        return [int(word == "and")]
    first, *others = terms
    found = _tokens(first, own)
    for term in others:
        found += [*_tokens(term, own), word]
    return found
