"""Explanations: the density's formula, and what is said of every stage."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import sympy

from patternc import driver
from patternc.analysis.count import CountFormula
from patternc.explain import as_json, as_text, density_expression, explain
from patternc.source import Source
from tests.programs import DUO, PHI3_SMALL, one_head


def explained(text: str) -> str:
    return as_text(explain(driver.trace_source(Source("test.pat", text))))


@pytest.mark.parametrize(
    ("mask", "formula"),
    [
        ("causal", "(N + 1)/(2*N) for N >= 1"),
        ("window(100)", "(100*N - 4950)/N^2 for N >= 99"),
        ("full", "1 for N >= 1"),
        ("empty", "0 for N >= 1"),
    ],
)
def test_the_density_as_a_formula(mask: str, formula: str) -> None:
    assert f"density: {formula}" in explained(one_head(mask))


def test_the_density_is_a_mean_over_the_heads() -> None:
    total = CountFormula(Fraction(3, 2), Fraction(0), Fraction(6), period=1, start=1)
    n = sympy.Symbol("N", integer=True, positive=True)
    assert density_expression(total, 3).equals((n**2 + 4) / (2 * n**2))


def test_a_period_is_said() -> None:
    assert "for N >= 1024 and N % 512 == 0" in explained(PHI3_SMALL)


def test_json_holds_the_formula_in_latex() -> None:
    found = explain(driver.trace_source(Source("test.pat", DUO)))
    data = json.loads(json.dumps(as_json(found)))
    assert data["groups"][0]["latex"] == r"\frac{N + 1}{2 N}"


def test_no_closed_form_says_why() -> None:
    text = explained(one_head("q * k < 1000"))
    assert "no closed form: a product of two symbols is not affine" in text
    assert "no formula" in text
