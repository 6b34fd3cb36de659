"""Values of parameters, entries, and bounds that depend on them."""

from __future__ import annotations

import pytest

from patternc.check import check_file, entries, lower
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import AssertDensity, Attention, RuntimeParam
from patternc.source import Source
from patternc.syntax.parse import parse

TEXT = """
pattern wide(n, d = 2) = k // d < n
attention a(w, r: runtime, t: runtime = 5, p = 0.07) {
    heads w kv 2
    mask window(w + r)
    assert density < p at N = 64
}
"""


def run(text: str, entry: str | None = None, **values: float) -> Attention:
    return lower(parse(Source("x.pat", text)), entry, values)


def failures(text: str, entry: str | None = None, **values: float) -> list[Diagnostic]:
    with pytest.raises(PatternError) as caught:
        run(text, entry, **values)
    return list(caught.value.diagnostics)


def codes(text: str, entry: str | None = None, **values: float) -> list[str]:
    return [item.code for item in failures(text, entry, **values)]


def test_values_are_bound() -> None:
    attention = run(TEXT, "a", w=4, r=7, p=0.25)
    assert attention.heads == 4
    assert attention.params == (RuntimeParam("r", 7), RuntimeParam("t", 5))
    (claim,) = attention.asserts
    assert isinstance(claim, AssertDensity)
    assert (claim.numerator, claim.denominator) == (1, 4)


def test_a_runtime_parameter_may_have_no_value() -> None:
    assert run(TEXT, "a", w=4).params[0] == RuntimeParam("r", None)


@pytest.mark.parametrize("value", [3.0, 1.5, True, 2**63, -(2**63) - 1])
def test_a_wrong_integer(value: float) -> None:
    (found,) = failures(TEXT, "a", w=value)
    assert found.code == "wrong-value"
    assert found.span.text == "w"


@pytest.mark.parametrize("value", [2**30 + 1, -(2**30) - 1, 0.5])
def test_a_wrong_runtime_value(value: float) -> None:
    assert codes(TEXT, "a", w=4, r=value) == ["wrong-value"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True])
def test_a_wrong_decimal(value: float) -> None:
    assert codes(TEXT, "a", w=4, p=value) == ["wrong-value"]


def test_a_missing_value_and_an_unknown_one_are_told_together() -> None:
    found = failures(TEXT, "a", ww=3)
    assert sorted(item.code for item in found) == ["missing-value", "unknown-parameter"]
    assert any(item.help == "did you mean `w`?" for item in found)


def test_entries() -> None:
    file = parse(Source("x.pat", TEXT))
    assert entries(file) == ("a", "wide")
    assert lower(file, None, {"w": 4}).name == "a"
    assert lower(file, "wide", {"n": 3}).name == "wide"
    assert codes(TEXT, "wide") == ["missing-value"]
    (found,) = failures(TEXT, "wid")
    assert (found.code, found.help) == ("entry", "did you mean `wide`?")
    (found,) = failures("pattern a = full pattern c = full")
    assert (found.code, found.help) == ("entry", "the entries are `a`, `c`")
    assert codes("") == ["entry"]
    assert codes("attention a { heads 1 mask full } attention c { heads 1 mask full }")


def test_what_depends_on_values_is_checked_with_them() -> None:
    text = "attention a(w, d) { heads 4 kv w mask q // d == k }"
    assert check_file(parse(Source("x.pat", text))) == ()
    assert run(text, w=2, d=-3).kv_heads == 2
    assert codes(text, w=3, d=1) == ["heads"]
    assert codes(text, w=2, d=0) == ["zero-division"]
    assert codes(text, w=0, d=0) == ["heads"]


@pytest.mark.parametrize(
    ("expr", "code"),
    [
        ("q // (k + 1) == 0", None),
        ("q // N == 0", None),
        ("q % (h + 1) == 0", None),
        ("q // max(r, 1) == 0", None),
        ("q // r == 0", "zero-division"),
        ("q // k == 0", "zero-division"),
        ("q % (4 - h) == 0", None),
        ("q % (3 - h) == 0", "zero-division"),
        ("q // (abs(q) + 1) == 0", None),
        ("q // clamp(q, 1, 9) == 0", None),
        ("q // clamp(q, 0, 9) == 0", "zero-division"),
        ("(q // k)[q, k + 1] == 0", "type"),
        ("(q // k == 0)[q, k + 1]", None),
        ("k * k * 8 - 1 <= q", "overflow"),
        ("k * k * 7 <= q", None),
        ("-9223372036854775807 - 1 <= q", None),
        ("-9223372036854775807 - 2 <= q", "overflow"),
        ("(k * k <= q)[q, k * 4]", "overflow"),
        ("(k * k <= q)[q, k * k]", "overflow"),
    ],
)
def test_bounds(expr: str, code: str | None) -> None:
    text = f"attention a(r: runtime = 1) {{ heads 4 mask {expr} }}"
    found = {item.code for item in check_file(parse(Source("x.pat", text)))}
    assert found == ({code} if code else set())


def test_a_mistake_in_an_expanded_pattern_shows_the_call() -> None:
    text = "pattern by(w) = q // w == k\nattention a { heads 1 mask by(k) | by(q) }"
    (found,) = check_file(parse(Source("x.pat", text)))
    assert found.span.text == "w"
    assert [other.span.text for other in found.others] == ["by(k)"]
