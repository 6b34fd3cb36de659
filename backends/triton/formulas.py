"""Bounds of key tiles as formulas of a package.

In: expressions of a schedule's ranges. Out: `Formula`s in reverse Polish notation, as
`patternc.runtime.steps` evaluates them. Not its job: the text of a generated module
(`expr`).
"""

from __future__ import annotations

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
from patternc.runtime.manifest import Formula, HeadGroup, Steps

Token = int | str

_NAMES = {Axis.QUERY_TILE: "qt", Axis.HEAD: "h", Axis.LENGTH: "n_k"}


def head_groups(kernel: Kernel) -> tuple[HeadGroup, ...]:
    """What the launcher knows of each head group's tiles."""
    return tuple(_group(cover) for cover in kernel.covers)


def _group(cover: TileCover) -> HeadGroup:
    ranges = None if cover.ranges is None else tuple(map(_steps, cover.ranges))
    return HeadGroup(min(cover.heads), ranges)


def _steps(part: KeyRange) -> Steps:
    return Steps(formula(part.lo), formula(part.hi), part.step, formula(part.guard))


def formula(expr: Expr) -> Formula:
    """An expression of query tile, head, length and run-time parameters."""
    return Formula(tuple(_tokens(expr)))


def _tokens(expr: Expr) -> list[Token]:
    match expr:
        case Const():
            return [expr.value]
        case Truth():
            return [int(expr.value)]
        case Index():
            return [_NAMES[expr.axis]]
        case Param():
            return [f"p_{expr.name}"]
        case Binary() | Compare():
            return [*_tokens(expr.lhs), *_tokens(expr.rhs), expr.op.value]
        case Abs():
            return [*_tokens(expr.operand), "abs"]
        case All():
            return _joined(expr.terms, "and")
        case Any():
            return _joined(expr.terms, "or")
        case Not():
            return [*_tokens(expr.term), "not"]
        case Read():
            raise AssertionError("no range reads an input")
        case _:
            assert_never(expr)


def _joined(terms: tuple[Expr, ...], word: str) -> list[Token]:
    first, *others = terms
    found = _tokens(first)
    for term in others:
        found += [*_tokens(term), word]
    return found
