"""Diagnostics as text and as JSON."""

from __future__ import annotations

import json

import pytest

from patternc.diagnostics import Diagnostic, Label, Severity
from patternc.render import render_json, render_text
from patternc.source import Source, Span


def at(text: str, part: str, name: str = "x.pat") -> Span:
    start = text.index(part)
    return Span(Source(name, text), start, start + len(part))


def lines(item: Diagnostic) -> list[str]:
    return render_text([item]).splitlines()


def test_the_whole_layout() -> None:
    text = "pattern sliding(window) = k <= q & q - k < windw\n"
    item = Diagnostic(
        "unknown-name",
        "`windw` is not declared",
        at(text, "windw", "sliding.pat"),
        "used as a number here",
        "did you mean `window`?",
    )
    assert render_text([item]) == (
        "error[unknown-name]: `windw` is not declared\n"
        " --> sliding.pat:1:44\n"
        "  |\n"
        "1 | pattern sliding(window) = k <= q & q - k < windw\n"
        "  |                                            ^^^^^ used as a number here\n"
        "  = help: did you mean `window`?\n"
    )


def test_two_diagnostics_have_an_empty_line_between() -> None:
    item = Diagnostic("type", "wrong", at("abc", "b"))
    assert render_text([item, item]) == render_text([item]) + "\n" + render_text([item])
    assert render_text([]) == ""


def test_warnings_and_colours() -> None:
    item = Diagnostic("x", "m", at("abc", "b"), severity=Severity.WARNING)
    assert lines(item)[0] == "warning[x]: m"
    assert "\033[1;33mwarning[x]\033[0m" in render_text([item], color=True)
    assert "\033" not in render_text([item])


@pytest.mark.parametrize(
    ("text", "shown", "carets"),
    [
        ("\tq + wrong", "1 |     q + wrong", "  |         ^^^^^"),
        ("a\twrong", "1 | a   wrong", "  |     ^^^^^"),
        ("漢字 wrong", "1 | 漢字 wrong", "  |      ^^^^^"),
        ("e\u0301 wrong", "1 | e\u0301 wrong", "  |   ^^^^^"),
        ("\x1b[2J wrong", "1 | \\u{1b}[2J wrong", "  |           ^^^^^"),
        ("\u202e wrong", "1 | \\u{202e} wrong", "  |          ^^^^^"),
    ],
)
def test_carets_stand_under_what_a_terminal_shows(
    text: str, shown: str, carets: str
) -> None:
    assert lines(Diagnostic("x", "m", at(text, "wrong")))[3:] == [shown, carets]


def test_a_place_at_the_end_has_one_caret() -> None:
    source = Source("x", "abc")
    assert lines(Diagnostic("x", "m", Span(source, 3, 3)))[3:] == [
        "1 | abc",
        "  |    ^",
    ]


def test_a_place_of_several_lines() -> None:
    text = "mask (\n    full &\n\n    causal)\nend"
    part = text[5 : text.index("\nend")]
    assert lines(Diagnostic("x", "m", at(text, part), "why"))[3:] == [
        "1 | mask (",
        "  |      ^",
        "2 |     full &",
        "  |     ^^^^^^",
        "...",
        "4 |     causal)",
        "  |     ^^^^^^^ why",
    ]


def test_a_very_long_place_is_cut() -> None:
    text = "\n".join(f"line{number}" for number in range(1000))
    found = lines(Diagnostic("x", "m", at(text, text), "why"))
    assert len(found) == 3 + 2 * 4 + 1
    assert found[-1].endswith("^^^^^^^ why")


def test_other_places_on_the_line_elsewhere_and_in_another_file() -> None:
    text = "first second\nthird\nfourth"
    span = at(text, "second")
    others = (
        Label(Span(span.source, 0, 5), "one"),
        Label(Span(span.source, 19, 25), "four"),
        Label(at("other file", "file", "y.pat"), "elsewhere"),
    )
    assert lines(Diagnostic("x", "m", span, "two", "", others))[1:] == [
        " --> x.pat:1:7",
        "  |",
        "1 | first second",
        "  |       ^^^^^^ two",
        "  | ----- one",
        "...",
        "3 | fourth",
        "  | ------ four",
        " ::: y.pat:1:7",
        "  |",
        "1 | other file",
        "  |       ---- elsewhere",
    ]


def test_a_long_line_is_cut_around_the_place() -> None:
    text = "x" * 5000 + " wrong " + "y" * 5000
    found = lines(Diagnostic("x", "m", at(text, "wrong")))
    assert max(map(len, found)) < 120
    shown, carets = found[3:]
    start = carets.index("^")
    assert shown[start : start + 5] == "wrong"
    assert carets.count("^") == 5
    assert shown.startswith("1 | ...x") and shown.endswith("y...")


def test_a_file_without_text_shows_its_name_only() -> None:
    item = Diagnostic("cannot-read", "no", Span(Source("gone.pat", ""), 0, 0))
    assert lines(item) == ["error[cannot-read]: no", " --> gone.pat:1:1"]


def test_json_has_one_object_a_line() -> None:
    text = "a\nbc wrong\n"
    span = at(text, "wrong")
    item = Diagnostic("x", 'm "é"', span, "l", "h", (Label(at(text, "a"), "o"),))
    first, second = render_json([item, item]).splitlines()
    assert first == second
    assert json.loads(first) == {
        "code": "x",
        "severity": "error",
        "message": 'm "é"',
        "label": "l",
        "help": "h",
        "file": "x.pat",
        "line": 2,
        "column": 4,
        "end_line": 2,
        "end_column": 9,
        "others": [
            {
                "label": "o",
                "file": "x.pat",
                "line": 1,
                "column": 1,
                "end_line": 1,
                "end_column": 2,
            }
        ],
    }
