"""`docs/language.md` says what the checker does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import patternc.limits
from patternc import stdlib_patterns
from patternc.check import check_file, lower
from patternc.check.scope import BUILT_IN, INDICES, LATER_NAMES
from patternc.source import Source
from patternc.syntax.parse import parse
from patternc.syntax.words import LATER_CLAUSES

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_its_program_is_accepted() -> None:
    (program,) = re.findall(r"```pat\n(.*?)```", PAGE, re.DOTALL)
    file = parse(Source("page.pat", program))
    assert check_file(file) == ()
    assert lower(file).heads == 8


def rows(title: str) -> dict[str, str]:
    found = re.findall(r"^\| `(.+?)` \| `(.+)` \|$", section(title), re.MULTILINE)
    return {left: right.replace("\\|", "|") for left, right in found}


def test_it_lists_the_standard_patterns() -> None:
    names = {head.partition("(")[0] for head in rows("Standard patterns")}
    assert names == set(stdlib_patterns.names())


@pytest.mark.parametrize("head", rows("Standard patterns"))
def test_a_standard_pattern_is_written_as_it_is(head: str) -> None:
    text = stdlib_patterns.text(head.partition("(")[0])
    body = rows("Standard patterns")[head]
    assert f"pattern {head} = {body}" in text


def test_it_names_what_is_reserved() -> None:
    words = set(re.findall(r"\w+", section("Files and names") + section("Expressions")))
    assert words >= INDICES | LATER_NAMES | BUILT_IN
    assert set(re.findall(r"^\| `(\w)` \|", PAGE, re.MULTILINE)) == INDICES


def test_its_limits_are_the_real_ones() -> None:
    text = section("Limits")
    for limit in ("TOKENS", "NESTING", "EXPANSION", "EXPANSION_DEPTH", "HEADS"):
        assert f"{getattr(patternc.limits, limit):,}" in text
    assert f"{patternc.limits.DIAGNOSTICS} findings" in text
    assert f"{patternc.limits.NAME_LENGTH} characters" in section("Files and names")


def test_what_it_says_is_refused_is_refused() -> None:
    named = set(re.findall(r"`(\w+)`", section("Not yet")))
    assert named - {"unsupported", "layer", "step"} <= LATER_CLAUSES
