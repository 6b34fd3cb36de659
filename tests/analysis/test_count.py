"""Counts of visible pairs, in numbers and as a formula, against the evaluator."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.analysis.count import CountFormula, count_formula, pair_count
from patternc.analysis.prove import mean_density
from patternc.analysis.sets import TooHard
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import BoolExpr
from tests.programs import EXAMPLES, PHI3_SMALL, compiled, one_head
from tests.strategies import masks


@given(masks(affine=False), st.integers(1, 150), st.integers(0, 3))
def test_counts_are_exact(mask: BoolExpr, length: int, head: int) -> None:
    expected = int(dense_mask(mask, head, length, length, 0).sum())
    assert pair_count(mask, 4).at(head, length, {}) == expected


@given(masks(), st.integers(0, 6))
def test_a_formula_holds_wherever_it_says(mask: BoolExpr, later: int) -> None:
    counter = pair_count(mask, 4)
    formula = count_formula(counter, (1,), {})
    if formula is not None:
        length = formula.start + later * formula.period
        assert formula.at(length) == counter.at(1, length, {})


def test_the_formulas_one_would_write() -> None:
    causal = compiled(one_head("causal")).covers[0].mask
    formula = count_formula(pair_count(causal, 1), (0,), {})
    assert formula is not None
    half = Fraction(1, 2)
    assert formula == CountFormula(half, half, Fraction(0), period=1, start=1)

    window = compiled(one_head("window(100)")).covers[0].mask
    formula = count_formula(pair_count(window, 1), (0,), {})
    assert formula is not None
    lost = Fraction(-100 * 99, 2)  # the triangle before the window is full
    assert formula == CountFormula(Fraction(0), Fraction(100), lost, 1, start=99)

    shards = compiled(PHI3_SMALL).covers[0].mask
    formula = count_formula(pair_count(shards, 32), tuple(range(8)), {})
    assert formula is not None
    assert formula.square == 8 * Fraction(1, 16)  # each head keeps an eighth of causal


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_against_the_evaluator(name: str) -> None:
    attention = compiled(EXAMPLES[name]).attention
    heads = tuple(range(attention.heads))
    total = sum(
        int(dense_mask(attention.case_of(h).mask, h, 700, 700).sum()) for h in heads
    )
    expected = Fraction(total, attention.heads * 700 * 700)
    assert mean_density(attention, heads, 700, {}) == expected


def test_too_many_pairs_are_refused() -> None:
    mask = compiled(one_head("q * k < 1000")).covers[0].mask
    with pytest.raises(TooHard, match="one by one"):
        pair_count(mask, 1).at(0, 10**6, {})
