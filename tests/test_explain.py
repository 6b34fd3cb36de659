"""Explanations: the density's formula, and what is said of every stage."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import sympy

from patternc import driver
from patternc.analysis.count import CountFormula
from patternc.explain import as_json, as_text, explain
from patternc.explain_counts import density_expression
from patternc.passes import reorder
from patternc.source import Source
from tests.backends.triton.pair_programs import PROGRAMS
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


def test_what_an_input_decides_is_left_open() -> None:
    text = explained(
        "attention it { heads 2 input doc[k] : int mask causal & doc[q] == doc[k] }"
    )
    assert "no closed form: it reads the input `doc`" in text
    assert "density: no formula: it depends on the input `doc`" in text


def test_a_layout_is_counted_at_its_own_length() -> None:
    program = """layout clip = video[f = 4, y = 8, x = 8]
    attention it {
        heads 2
        layout clip
        mask abs(q.y * 8 + q.x - k.y * 8 - k.x) <= 2
        order video by axes(y, x, f)
    }"""
    found = explain(driver.trace_source(Source("test.pat", program)))
    assert [count.n for count in found.counts] == [256]
    assert found.counts[0].visited < found.counts[0].total
    assert found.groups[0].orders == ("video by axes(y, x, f)",)
    order = "square calls: tokens in the order video by axes(y, x, f), tiles listed"
    assert order in as_text(found)


def test_a_pass_tells_what_it_found() -> None:
    text = explained(one_head("dilated(4096, 4)"))
    assert "order all by phase(4) visits" in text
    assert "stages by head size" in text


def test_checking_searches_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*_: object) -> None:
        raise AssertionError("an order was searched")

    monkeypatch.setattr(reorder, "_search", search)
    program = Source("test.pat", one_head("dilated(4000, 4)"))
    assert driver.check_source(program) == ()
    with pytest.raises(AssertionError, match="an order was searched"):
        driver.trace_source(program)


def test_the_path_says_what_shares_a_tile_and_what_runs_twice() -> None:
    grouped = explain(driver.trace_source(Source("test.pat", DUO))).path
    assert any("the 4 query heads of a key/value head are rows" in x for x in grouped)
    assert any("a second launch computes a query tile again" in x for x in grouped)
    alone = explain(driver.trace_source(Source("test.pat", one_head("full")))).path
    assert len(alone) == 1 < len(grouped)


def test_the_gradients_of_inputs_say_what_they_cost() -> None:
    found = {
        name: explain(driver.trace_source(Source("test.pat", PROGRAMS[name]))).gradients
        for name in ("kinds", "t5", "coarse", "swin", "windows", "buckets")
    }
    assert "64 x 64 pairs stores 128 sums, of its diagonals" in found["t5"][0]
    assert "of blocks of 64 x 32 pairs" in found["coarse"][0]
    assert "diagonals of squares of 8 x 8 pairs" in found["swin"][0]
    assert "sorted by the element" in found["windows"][-1]
    assert "added to the elements of its pairs" in found["kinds"][0]
    assert found["buckets"][0] == "slope: a number for each query and head"
    assert found["buckets"][1].startswith("table: each tile of 64 x 64")
    assert "over 256 MiB" in found["t5"][0]
    text = as_text(explain(driver.trace_source(Source("test.pat", PROGRAMS["t5"]))))
    assert "gradient of rel: each tile" in text
