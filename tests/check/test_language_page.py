"""`docs/language.md` says what the checker does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import patternc.limits
from patternc import driver, stdlib_patterns
from patternc.check import check_file, entries, lower
from patternc.check.orders import KINDS
from patternc.check.scope import BUILT_IN, GIVEN, INDICES, TENSORS
from patternc.diagnostics import PatternError
from patternc.grammar import build_parser
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import STEPS, WeightKind
from patternc.source import Source
from patternc.syntax.build import Builder
from patternc.syntax.parse import parse
from patternc.syntax.words import ASSERT_WORDS, KEYWORDS, NEVER_NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```pat\n(.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def quoted(text: str) -> set[str]:
    """The words in backticks."""
    return {word for code in re.findall(r"`([^`]+)`", text) for word in code.split()}


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_is_accepted(number: int) -> None:
    """Nothing is said of it, and every assert that reads no input is proved."""
    source = Source(f"page-{number}.pat", PROGRAMS[number])
    file = parse(source)
    assert check_file(file) == ()
    assert driver.check_source(source) == ()
    for entry in entries(file):
        item = next(item for item in file.items if item.name.text == entry)
        if all(p.default is not None or p.runtime for p in item.parameters):
            assert lower(file, entry).name == entry


def test_there_are_programs_in_every_chapter() -> None:
    chapters = ["Cases", "Layouts", "Inputs", "Orders", "Conventions that differ"]
    for title in chapters:
        rest = PAGE.partition(f"# {title}")[2].partition("\n## ")[0]
        assert "```pat" in rest, title


def test_it_names_what_is_reserved() -> None:
    words = quoted(section("Files and names"))
    assert words >= INDICES | TENSORS | {*STEPS} | GIVEN.keys() | {"b"}
    named = set(re.findall(r"\w+", section("Expressions")))
    assert named >= BUILT_IN
    indices = re.findall(r"^\| `(\w)` \|", section("Files and names"), re.MULTILINE)
    assert set(indices) == INDICES


def test_it_lists_orders_and_weights() -> None:
    orders = section("Orders")
    assert all(f"`{kind}(" in orders for kind in KINDS)
    scores = section("Scores, weights, sinks, outputs")
    assert all(f"`weights {kind.value}" in scores for kind in WeightKind)


def test_its_limits_are_the_real_ones() -> None:
    text = section("Limits")
    for limit in ("TOKENS", "NESTING", "EXPANSION", "EXPANSION_DEPTH", "HEADS"):
        assert f"{getattr(patternc.limits, limit):,}" in text
    assert f"{patternc.limits.DIAGNOSTICS} findings" in text
    assert f"{patternc.limits.NAME_LENGTH} characters" in section("Files and names")


def refused(text: str) -> list[str]:
    with pytest.raises(PatternError) as caught:
        lower(parse(Source("x.pat", text)))
    return [found.code for found in caught.value.diagnostics]


def test_what_it_says_is_refused_is_refused() -> None:
    words = quoted(section("Not yet"))
    assert "V" in words
    assert refused("pattern p = V == q") == ["unsupported"]
    for clause in ("order all by phase(2)", "weights sigmoid", "sink 1", "skip"):
        assert clause.split()[0] in words
        text = f"attention a {{ heads 1 mask full {clause} for layer == 0 }}"
        assert refused(text) == ["unsupported"]


# --- the table of conventions, as pairs

AT = np.arange(300)
DISTANCE = AT[:, None] - AT[None, :]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seven_keys", (DISTANCE >= 0) & (DISTANCE < 7)),
        ("also_seven", (DISTANCE >= 0) & (DISTANCE <= 6)),
        ("thirteen_keys", abs(DISTANCE) <= 6),
        (
            "rounded_blocks",
            (AT[:, None] // 64 - AT // 64 >= 0) & (AT[:, None] // 64 - AT // 64 < 4),
        ),
    ],
)
def test_a_convention(name: str, expected: np.ndarray) -> None:
    (program,) = [text for text in PROGRAMS if f"pattern {name} " in text]
    mask = lower(parse(Source("x.pat", program)), name).cases[0].mask
    np.testing.assert_array_equal(dense_mask(mask, 0, 300, 300), expected)


def test_the_last_query_is_the_last_keys() -> None:
    mask = lower(parse(Source("x.pat", "pattern p = causal"))).cases[0].mask
    assert dense_mask(mask, 0, 2, 5).sum(axis=1).tolist() == [4, 5]
    assert dense_mask(mask, 0, 2, 5, 0).sum(axis=1).tolist() == [1, 2]


# --- the grammar

EBNF = re.search(r"```ebnf\n(.*?)```", PAGE, re.DOTALL)
SIGNS = ["<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "//", "%", "/", "@"]
SIGNS += ["~", "&", "|"]
BRACKETS = ["(", ")", "[", "]", "{", "}", ",", ":", "=", "."]


def test_the_grammar_has_the_words_of_the_parser() -> None:
    assert EBNF is not None
    words = set(re.findall(r"'([^']+)'", EBNF[1]))
    assert words == {*KEYWORDS, *ASSERT_WORDS, *SIGNS, *BRACKETS}
    assert quoted(section("Grammar")) >= NEVER_NAMES


def test_every_rule_of_the_grammar_is_there() -> None:
    """Both name the same rules, but for those that only shape the tree."""
    assert EBNF is not None
    rules = set(re.findall(r"^(\w+) +=", EBNF[1], re.MULTILINE))
    plain = re.sub(r"'[^']+'|(?<= )\[[^' ]+\]", "", EBNF[1])
    used = set(re.findall(r"\w{2,}", plain))
    assert used == rules
    parser = build_parser(Builder())
    origins = {rule.origin.name for rule in parser.rules}
    written = {str(getattr(name, "value", name)) for name in origins}
    written = {name for name in written if not name.startswith("_")}
    assert written - {"start", "item", "default"} == rules - {
        "file",
        "set",
        "name",
        "number",
        "decimal",
    }


def test_standard_patterns_are_named() -> None:
    named = set(re.findall(r"`(\w+)(?:\(|`)", section("Standard patterns")))
    assert named >= set(stdlib_patterns.names())
