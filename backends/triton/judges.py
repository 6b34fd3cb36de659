"""Tile lists that follow inputs, as a package says them.

In: a kernel with lists for every cover that some kernel lists the tiles of. Out: what
judges tiles, as formulas. Not its job: the text of a module that does the same
(`profiles`), the arithmetic of bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from patternc.analysis.interval import Box
from patternc.backends.triton.expr import folded
from patternc.backends.triton.formulas import NAMES, Token, formula
from patternc.backends.triton.profiles import (
    alike,
    is_searched,
    is_truth,
    needed,
    two_sided,
)
from patternc.ir.nodes import (
    Abs,
    All,
    Any,
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
from patternc.plan.kernel import Kernel, TileCover
from patternc.plan.sides import sides_of
from patternc.runtime.data import Judge, JudgePart, JudgeTable, ListedCover
from patternc.runtime.formula import Formula


def listed_covers(listing: Kernel, box: Box) -> tuple[ListedCover, ...]:
    """The heads whose tiles are listed for each call, in order."""
    return tuple(
        ListedCover(
            tuple(cover.heads), alike(listing.attention, cover.mask), _judge(cover, box)
        )
        for _, cover in needed(listing)
    )


def _judge(cover: TileCover, box: Box) -> Judge:
    sides = sides_of(folded(cover.mask), box)  # type: ignore[arg-type]
    parts = [(True, part) for part in sides.query]
    parts += [(False, part) for part in sides.key]
    names = {part: f"part_{at}" for at, (_, part) in enumerate(parts)}
    tables = two_sided(sides.mask, names)
    return Judge(
        tuple(
            JudgePart(of_queries, is_truth(part), formula(folded(part)))
            for of_queries, part in parts
        ),
        tuple(_table(read) for read in tables),
        sides.by_step,
        Formula(tuple(_tokens(folded(sides.mask), names, tables))),
    )


def _table(read: Read) -> JudgeTable:
    places = (
        None if is_searched(index) else formula(folded(index)) for index in read.indices
    )
    return JudgeTable(read.table, tuple(places))


def _tokens(
    expr: Expr, names: Mapping[Expr, str], tables: Mapping[Read, str]
) -> list[Token]:
    """A mask over bounds: one-sided parts have names, other reads their tables."""
    if expr in names:
        return [names[expr]]

    def of(*parts: Expr) -> list[Token]:
        return [token for part in parts for token in _tokens(part, names, tables)]

    match expr:
        case Const():
            return [expr.value]
        case Truth():
            return ["true" if expr.value else "false"]
        case Index():
            return [NAMES[expr.axis]]
        case Param():
            return [f"p_{expr.name}"]
        case Binary() | Compare():
            return [*of(expr.lhs, expr.rhs), expr.op.value]
        case Abs():
            return [*of(expr.operand), "abs"]
        case Not():
            return [*of(expr.term), "not"]
        case All() | Any():
            is_all = isinstance(expr, All)
            found: list[Token] = ["true" if is_all else "false"]
            for term in expr.terms:
                found += [*of(term), "and" if is_all else "or"]
            return found
        case Read():
            searched = [index for index in expr.indices if is_searched(index)]
            return [*of(*searched), f"read {len(searched)} {tables[expr]}"]
        case _:
            assert_never(expr)
