"""Assertions: proved where they hold, refuted with a true counterexample where not."""

from __future__ import annotations

import re

import pytest

from patternc import driver
from patternc.analysis.prove import Decision, decide_all
from patternc.check import lower
from patternc.diagnostics import PatternError, Severity
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention
from patternc.source import Source
from patternc.syntax.parse import parse
from tests.programs import DUO, EXAMPLES, PATTERNS, PHI3_SMALL


def program(text: str) -> Attention:
    return lower(parse(Source("test.pat", text)))


def decide(text: str) -> Decision:
    """The decision on a program's only assertion."""
    (decision,) = decide_all(program(text))
    return decision


def with_assert(mask: str, assertion: str, heads: str = "4") -> str:
    return f"{PATTERNS}attention it {{ heads {heads} mask {mask} assert {assertion} }}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_assertions_are_proved(name: str) -> None:
    decisions = decide_all(program(EXAMPLES[name]))
    assert decisions
    assert all(decision.holds for decision in decisions)
    assert all("exactly" in decision.how for decision in decisions)


@pytest.mark.parametrize(
    ("mask", "assertion"),
    [
        ("causal & strided(16, 8)[q // 64, k // 64]", "union over h == causal"),
        ("band(3)", "mask within causal"),
        ("causal", "causal within mask & window(9)"),
        ("window(5)", "window(6) within window(5)"),
        ("window(5) & (q - k) % 2 == h % 2", "union over h == window(6)"),
    ],
)
def test_a_false_set_assertion_has_a_true_counterexample(
    mask: str, assertion: str
) -> None:
    text = with_assert(mask, assertion)
    if "mask & " in assertion:  # the left pattern is not within the smaller right one
        text = with_assert(mask, "mask within window(9)")
    decision = decide(text)
    assert decision.holds is False
    found = re.fullmatch(
        r"(?:some head|head (\d+)), q = (\d+), k = (\d+) \(N = (\d+)\): in the "
        r"(left|right) side, not in the (left|right) side",
        decision.counterexample,
    )
    assert found, decision.counterexample
    q, k, length = (int(found.group(at)) for at in (2, 3, 4))
    assert 0 <= q < length
    assert 0 <= k < length
    assert found.group(5) != found.group(6)


def test_a_leak_is_shown_where_it_is() -> None:
    decision = decide(with_assert("band(3)", "mask within causal"))
    assert decision.counterexample == (
        "head 0, q = 0, k = 1 (N = 2): in the left side, not in the right side"
    )


def test_every_row() -> None:
    assert decide(with_assert("causal", "every q has k")).holds
    decision = decide(with_assert("causal & k + 3 <= q", "every q has k"))
    assert decision.holds is False
    found = re.search(r"head (\d+), q = (\d+) \(N = (\d+)\)", decision.counterexample)
    assert found
    head, q, length = (int(part) for part in found.groups())
    mask = program(with_assert("causal & k + 3 <= q", "every q has k")).case_of(head)
    assert not dense_mask(mask.mask, head, length, length)[q].any()


@pytest.mark.parametrize(
    ("sign", "bound", "holds"),
    [("<=", 320, True), ("<", 321, True), ("<=", 319, False), ("<", 320, False)],
)
def test_retention_is_exact(sign: str, bound: int, holds: bool) -> None:
    text = DUO.replace("<= sink + recent", f"{sign} {bound}")
    assert decide(text).holds is holds


def test_retention_names_the_first_moment() -> None:
    decision = decide(DUO.replace("<= sink + recent", "<= 319"))
    assert "t = 319 runs (N = 320)" in decision.counterexample


def test_retention_of_a_dense_head_grows_without_end() -> None:
    decision = decide(DUO.replace("for g in {1}", "for g in {0}"))
    assert decision.holds is False
    assert "head 0 must keep more than 320 keys" in decision.counterexample


def test_retention_of_strided_columns() -> None:
    """Three of four columns are dropped: what is kept still grows."""
    text = with_assert("causal & (window(8) | k % 4 == 0)", "retention <= 100")
    assert decide(text).holds is False
    finite = with_assert(
        "causal & (window(8) | k < 40 & k % 4 == 0)", "retention <= 18"
    )
    assert decide(finite).holds
    assert decide(finite.replace("18", "17")).holds is False


@pytest.mark.parametrize(
    ("assertion", "holds"),
    [
        ("density < 0.07 at N = 131072", True),
        ("density < 0.03 at N = 131072", False),
        ("density >= 0.03 at N = 131072", True),
        ("density == 0.5625 at N = 8", True),  # causal there: (8 * 9 / 2) / 64
        ("density == 0.5624 at N = 8", False),
    ],
)
def test_density_is_counted_exactly(assertion: str, holds: bool) -> None:
    assert decide(with_assert("streaming(128, 3968)", assertion)).holds is holds


def test_heads_of_an_assertion() -> None:
    text = PHI3_SMALL.replace("assert union over h == causal", "").replace(
        "assert every q has k", "assert union over h == causal for h in range(0, 8)"
    )
    assert all(decision.holds for decision in decide_all(program(text)))
    fewer = text.replace("range(0, 8)", "range(0, 7)")
    assert [decision.holds for decision in decide_all(program(fewer))] == [True, False]


def test_what_is_not_affine_is_searched_and_says_so() -> None:
    decision = decide(with_assert("q * k % 7 < 3", "every q has k"))
    assert decision.holds is None
    assert "no counterexample up to N = 192" in decision.how
    refuted = decide(with_assert("q * k % 7 < 3", "mask within causal"))
    assert refuted.holds is False
    assert refuted.how == "refuted by a search"


def test_failures_are_errors_and_open_ones_warnings() -> None:
    text = with_assert("q * k % 7 < 3", "every q has k")
    (warning,) = driver.check_source(Source("test.pat", text))
    assert (warning.code, warning.severity) == ("assert-undecided", Severity.WARNING)
    bad = Source("test.pat", with_assert("band(3)", "mask within causal"))
    (error,) = driver.check_source(bad)
    assert error.code == "assert-failed"
    assert bad.text[error.span.start : error.span.end] == "assert mask within causal"
    with pytest.raises(PatternError, match="assert-failed"):
        driver.compile_source(bad)


def test_runtime_parameters_take_their_defaults() -> None:
    text = (
        "attention it(w: runtime = 8) { heads 1 mask window(w) "
        "assert retention <= 8 assert every q has k }"
    )
    assert all(decision.holds for decision in decide_all(program(text)))
    without = text.replace(" = 8)", ")")
    decisions = decide_all(program(without))
    assert all(decision.holds is None for decision in decisions)
    assert "needs a default for the run-time parameter `w`" in decisions[0].how


@pytest.mark.parametrize(
    ("mask", "assertion", "where"),
    [
        (
            "mask full for layer == 3 mask causal otherwise",
            "mask within causal",
            "head 0, q = 0, k = 1 (N = 2, layer = 3): in the left side, not in the",
        ),
        (
            "mask causal for step < 5 mask causal & k < q otherwise",
            "every q has k",
            "head 0, q = 0 (N = 1, step = 5): the row is empty",
        ),
        (
            "mask window(9) for layer % 4 != 2 | step < 7 mask window(10) otherwise",
            "retention <= 9",
            "when the query at t = 9 runs (N = 10, layer = 2, step = 7)",
        ),
        (
            "mask causal & (q * k + layer + step) % 7 < 5",
            "every q has k",
            "head 0, q = 0 (N = 1, layer = 2, step = 3): the row is empty",
        ),
        (
            "mask full for layer == 0 mask causal otherwise",
            "density < 0.9 at N = 8",
            "density 1 at N = 8, layer = 0",
        ),
        (
            "mask causal",
            "mask within window(5 + layer)",
            "head 0, q = 5, k = 0 (N = 6, layer = 0): in the left side, not in the",
        ),
    ],
)
def test_a_counterexample_names_the_layer_and_the_step(
    mask: str, assertion: str, where: str
) -> None:
    decision = decide(f"attention it {{ heads 2 {mask} assert {assertion} }}")
    assert decision.holds is False
    assert where in decision.counterexample


@pytest.mark.parametrize(
    "assertion", ["mask within causal", "every q has k", "retention <= 9"]
)
def test_what_holds_at_every_layer_is_proved_for_all_of_them(assertion: str) -> None:
    mask = "mask window(9) for layer % 4 == 1 mask window(3) otherwise"
    decision = decide(f"attention it {{ heads 2 {mask} assert {assertion} }}")
    assert decision.holds
    assert decision.how == "proved for every length and layer, exactly"


def test_a_layout_and_every_layer() -> None:
    text = (
        "layout l = text[6] attention it { heads 1 layout l"
        " mask window(2 + layer + step) assert mask within causal }"
    )
    every = "tokens and every layer and step, exactly"
    assert decide(text).how == f"proved for the layout's 6 {every}"


def test_the_sides_of_an_assertion_may_read_a_runtime_parameter() -> None:
    text = (
        "attention it(w: runtime = 8) { heads 1 mask window(w)"
        " assert mask == window(w) assert window(w) within window(7) }"
    )
    same, narrower = decide_all(program(text))
    assert same.holds
    assert narrower.holds is False
    assert "q = 7, k = 0" in narrower.counterexample
