"""How many pairs are visible, and how many tiles are visited: as formulas and in numbers.

In: a planned kernel, its counters of pairs, lengths. Out: what `explain` tells of them.
Not its job: counting (`patternc.analysis.count`, `patternc.plan.expand`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from patternc.analysis.count import CountFormula, PairCount, count_formula
from patternc.analysis.sets import TooHard
from patternc.ir.text import print_heads
from patternc.ir.walk import tables_of
from patternc.plan.expand import count_tiles, head_classes
from patternc.plan.kernel import Kernel, TileCover

MOST_PAIRS = 1 << 27
"""Pairs that are counted one by one where there is no closed form; a few seconds."""


@dataclass(frozen=True, slots=True)
class Count:
    """One head of several that are alike, at one length of queries and of keys.

    `visible` pairs, their share of all pairs, None where they are too many to count
    one by one; tiles visited, of these partial, and all there are.
    """

    n: int
    heads: str
    visible: int | None
    density: float | None
    visited: int
    partial: int
    total: int


def density_of(
    cover: TileCover, counter: PairCount, values: Mapping[str, int] | None
) -> tuple[str, str]:
    """The density as text and in LaTeX."""
    if read := tables_of(cover.mask):
        return f"no formula: it depends on the input `{min(read)}`", ""
    if values is None:
        return "no formula: a run-time parameter has no value", ""
    formula = count_formula(counter, cover.heads, values)
    if formula is None:
        reason = "the visible pairs have no closed form that could be checked"
        return f"no formula: {reason}", ""
    expression = density_expression(formula, len(cover.heads))
    text = str(expression).replace("**", "^")
    return f"{text} for {_where(formula)}", sympy.latex(expression)


def density_expression(formula: CountFormula, heads: int) -> sympy.Expr:
    """The mean density of `heads` heads in lowest terms, from the total of their pairs."""
    n = sympy.Symbol("N", integer=True, positive=True)
    square, linear, constant = (
        sympy.Rational(term.numerator, term.denominator)
        for term in (formula.square, formula.linear, formula.constant)
    )
    return sympy.cancel((square * n**2 + linear * n + constant) / (heads * n**2))


def _where(formula: CountFormula) -> str:
    """The lengths for which a formula holds."""
    limits = [f"N >= {formula.start}"]
    limits += [f"N % {formula.period} == 0"] if formula.period > 1 else []
    return " and ".join(limits)


def counts_of(
    kernel: Kernel,
    counters: list[PairCount],
    lengths: tuple[int, ...],
    values: Mapping[str, int],
) -> tuple[Count, ...]:
    """Pairs and tiles of one head of each class, at every length."""
    counts = []
    for n in lengths:
        for cover, counter in zip(kernel.covers, counters, strict=True):
            if tables_of(cover.mask):  # nothing to count before a call gives the data
                continue
            for heads in head_classes(cover):
                tiles = count_tiles(kernel, heads[0], n, n, 0, values)
                visible = _visible(counter, heads[0], n, values)
                counts.append(
                    Count(
                        n=n,
                        heads=print_heads(heads),
                        visible=visible,
                        density=None if visible is None else visible / (n * n),
                        visited=tiles.visited,
                        partial=tiles.partial,
                        total=tiles.total,
                    )
                )
    return tuple(counts)


def _visible(
    counter: PairCount, head: int, n: int, values: Mapping[str, int]
) -> int | None:
    if counter.full is None and n * n > MOST_PAIRS:
        return None
    try:
        return counter.at(head, n, values)
    except TooHard:
        return None
