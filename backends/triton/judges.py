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
    is_chosen,
    is_searched,
    is_truth,
    mixes,
    needed,
    parts_outside,
    two_sided,
)
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
from patternc.ir.walk import axes_of
from patternc.plan.kernel import Kernel, TileCover
from patternc.plan.sides import sides_of
from patternc.runtime.data import (
    Judge,
    JudgeCell,
    JudgePart,
    JudgeTable,
    ListedCover,
)
from patternc.runtime.formula import Formula


def listed_covers(listing: Kernel, box: Box) -> tuple[ListedCover, ...]:
    """The heads whose tiles are listed for each call, in order."""
    attention, by_tile = listing.attention, is_chosen(listing)
    return tuple(
        ListedCover(
            tuple(cover.heads),
            alike(attention, cover.mask),
            _judge(cover, box, by_tile),
        )
        for _, cover in needed(listing)
    )


def _judge(cover: TileCover, box: Box, by_tile: bool) -> Judge:
    sides = sides_of(folded(cover.mask), box)  # type: ignore[arg-type]
    parts = [(True, part) for part in sides.query]
    parts += [(False, part) for part in sides.key]
    reads = list(two_sided(sides.mask, {part: "" for _, part in parts}))
    own = [read for read in reads if by_tile and not mixes(read)]
    cells: dict[Read, str] = {read: f"cell_{at}" for at, read in enumerate(own)}
    # What only cells are made from is not asked for by itself.
    outside = parts_outside(sides.mask, cells)
    parts = [(of_queries, part) for of_queries, part in parts if part in outside]
    names: dict[Expr, str] = {}
    names |= cells.items()
    names |= {part: f"part_{at}" for at, (_, part) in enumerate(parts)}
    others = [read for read in reads if read not in cells]
    tables = {read: f"table_{at}" for at, read in enumerate(others)}
    return Judge(
        tuple(
            JudgePart(of_queries, is_truth(part), formula(folded(part)))
            for of_queries, part in parts
        ),
        tuple(_table(read) for read in tables),
        tuple(_cell(read) for read in cells),
        sides.by_step,
        Formula(tuple(_tokens(folded(sides.mask), names, tables))),
    )


def _table(read: Read) -> JudgeTable:
    places = (
        None if is_searched(index) else formula(folded(index)) for index in read.indices
    )
    return JudgeTable(read.table, tuple(places))


def _cell(read: Read) -> JudgeCell:
    sides = []
    for index in read.indices:
        own = axes_of(index) & {Axis.QUERY, Axis.KEY}
        sides.append("".join(NAMES[axis] for axis in own))
    places = (formula(folded(index)) for index in read.indices)
    return JudgeCell(read.table, tuple(sides), tuple(places))


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
