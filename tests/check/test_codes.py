"""Every code's wrong example gives exactly that code; its right one gives none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import patternc.check
from patternc.check import check_file, lower
from patternc.codes import CODES, Code
from patternc.diagnostics import Diagnostic, PatternError
from patternc.driver import check_source
from patternc.source import Source
from patternc.syntax.parse import parse

EXAMPLES = [code for code in CODES.values() if code.stage == "check"]
ROOT = Path(patternc.check.__file__).parents[2]
FRONT = ("patternc/syntax", "patternc/check")


def findings(text: str, code: Code) -> tuple[Diagnostic, ...]:
    """Everything that reading `text`, and lowering the example's entry, reports."""
    try:
        file = parse(Source(f"{code.name}.pat", text))
        found = check_file(file)
        if code.entry is not None:
            lower(file, code.entry, code.values)
    except PatternError as error:
        return error.diagnostics
    return found


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.name)
def test_the_wrong_example_gives_this_code(code: Code) -> None:
    assert {found.code for found in findings(code.bad, code)} == {code.name}


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.name)
def test_the_right_example_gives_nothing(code: Code) -> None:
    assert findings(code.good, code) == ()


def test_a_false_assert_gives_its_code() -> None:
    code = CODES["assert-failed"]
    bad, good = (Source("x.pat", text) for text in (code.bad, code.good))
    assert [found.code for found in check_source(bad)] == [code.name]
    assert check_source(good) == ()


def test_every_code_of_the_front_half_is_listed() -> None:
    given = set()
    for folder in FRONT:
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            given |= set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)+)"', text))
            given |= set(re.findall(r'Diagnostic\(\s*"([a-z0-9-]+)"', text))
    given -= {"backslashreplace", "utf-8", "utf-8-sig"}
    assert given, "no code was found: the search is wrong"
    assert given <= set(CODES)


def test_every_listed_code_is_given_somewhere() -> None:
    text = "".join(
        path.read_text(encoding="utf-8")
        for folder in FRONT
        for path in (ROOT / folder).glob("*.py")
    )
    for name, code in CODES.items():
        if code.stage in ("check", "file"):
            assert f'"{name}"' in text, name
