"""Assertions over masks that read inputs, and over layouts."""

from __future__ import annotations

import pytest

from patternc.analysis.prove import Decision, decide_all
from patternc.check import lower
from patternc.source import Source
from patternc.syntax.parse import parse


def decide(
    mask: str, assertion: str, layout: str = "", element: str = "int"
) -> Decision:
    head = f"layout grid = {layout}\n" if layout else ""
    use = "layout grid " if layout else f"input doc[k] : {element} "
    text = f"{head}attention it {{ heads 2 {use} mask {mask} assert {assertion} }}"
    (decision,) = decide_all(lower(parse(Source("test.pat", text))))
    return decision


@pytest.mark.parametrize(
    ("mask", "assertion"),
    [
        ("causal & doc[q] == doc[k]", "mask within causal"),
        ("q == k | doc[q] == doc[k]", "every q has k"),
        ("window(8) & doc[k] == 3", "retention <= 8"),
        ("causal & doc[q] == doc[k]", "every q has k"),
        ("causal & doc[q] <= doc[k]", "every q has k"),
        ("doc[q] != doc[k]", "mask within ~(q == k)"),
        ("doc[k - 1] < doc[q]", "mask within (k != q + 1)"),
        ("doc[q // 2 * 2] == doc[k]", "(k == q & q % 2 == 0) within mask"),
        ("causal & ~(doc[k] == 1 & ~window(9))", "window(9) within mask"),
    ],
)
def test_what_holds_for_any_input_is_proved(mask: str, assertion: str) -> None:
    decision = decide(mask, assertion)
    assert decision.holds is True
    assert "proved for every length" in decision.how


@pytest.mark.parametrize(
    ("mask", "assertion"),
    [
        ("doc[q] == doc[k]", "mask within causal"),
        ("causal & doc[q] < doc[k]", "every q has k"),
        ("causal & doc[q - 1] == doc[k]", "every q has k"),
        ("causal & doc[doc[q]] == doc[doc[k]]", "every q has k"),
        ("causal & doc[q] == doc[k] + 1", "every q has k"),
        ("doc[k] == 3 & causal", "retention <= 8"),
        ("causal & doc[k] == 3", "mask == causal"),
        ("causal & doc[k] == 3", "density < 0.9 at N = 64"),
    ],
)
def test_what_depends_on_the_data_is_left_open(mask: str, assertion: str) -> None:
    decision = decide(mask, assertion)
    assert decision.holds is None
    assert "depends on what is in `doc`" in decision.how


def test_a_layout_fixes_the_length() -> None:
    grid = "video[f = 4, y = 6]"
    near = "abs(q.f - k.f) <= 1"
    decision = decide(near, "every q has k", grid)
    assert (decision.holds, decision.how) == (
        True,
        "proved for the layout's 24 tokens, exactly",
    )
    leak = decide(near, "mask within causal", grid)
    assert leak.holds is False
    assert "(N = 24)" in leak.counterexample


@pytest.mark.parametrize(
    ("mask", "assertion"),
    [
        ("doc[k] <= doc[q]", "causal within mask"),
        ("doc[q] >= doc[k]", "causal within mask"),
        ("doc[k] < doc[q]", "mask within (causal & k < q)"),
        ("doc[q] > doc[k]", "mask within (causal & k < q)"),
        ("~(doc[k] > doc[q])", "causal within mask"),
        ("window(9) & doc[k - 3] <= doc[q]", "(window(4) & k >= 3) within mask"),
    ],
)
def test_sorted_values_never_fall(mask: str, assertion: str) -> None:
    assert decide(mask, assertion, element="int sorted").holds
    assert decide(mask, assertion).holds is None


@pytest.mark.parametrize(
    ("mask", "assertion"),
    [
        ("doc[k] == doc[q]", "causal within mask"),
        ("doc[k] < doc[q]", "(causal & k < q) within mask"),
        ("doc[k] >= doc[q]", "causal within mask"),
        ("doc[k] >= doc[q]", "mask within ~causal"),
        ("doc[k] != doc[q]", "mask within causal"),
    ],
)
def test_sorted_values_may_stay_or_rise(mask: str, assertion: str) -> None:
    assert decide(mask, assertion, element="int sorted").holds is None
