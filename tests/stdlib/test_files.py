"""The standard files: each declares its own name, says where it comes from, and makes
claims that the compiler proves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from patternc import driver, stdlib_patterns
from patternc.check import check_file, lower
from patternc.check.scope import Scope
from patternc.cli.patterns import heading_of, picture_of
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import AssertSets, Attention, PairSet, Relation
from patternc.limits import FILE_BYTES
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse
from tests.stdlib.mask_mods import ORACLES
from tests.stdlib.selector_cases import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")

SELECTORS = {case.name for case in CASES}
"""They choose keys at run time."""

WITH_INPUTS = {"axis_blocks", "block_table", "documents", "per_head", "tree"}
"""Their masks read inputs, so they are attentions and no patterns."""

DIVISIBLE = {"sliding_tile": {"height": 6, "window_x": 1}}
"""Where a claim is about sizes that tiles divide: other sizes than the oracle's."""


def source_of(name: str) -> Source:
    return Source(f"{name}.pat", stdlib_patterns.text(name))


def test_names_and_files() -> None:
    names, files = set(stdlib_patterns.names()), set(stdlib_patterns.files())
    assert files - names == WITH_INPUTS | SELECTORS
    assert names <= files and len(names) >= 30
    with pytest.raises(KeyError):
        stdlib_patterns.text("../__init__")


@pytest.mark.parametrize("name", stdlib_patterns.names())
def test_a_file_declares_the_pattern_of_its_name(name: str) -> None:
    file = parse(source_of(name))
    attentions = [item for item in file.items if isinstance(item, ast.Attention)]
    assert [attention.name.text for attention in attentions] == ["claims"]
    assert check_file(file) == ()
    found = Scope().find(name)
    assert found is not None and found[0].name.text == name
    # What else the file declares serves this pattern only.
    assert Scope().find("ring") is None


@pytest.mark.parametrize("name", stdlib_patterns.files())
def test_its_heading(name: str) -> None:
    heading = heading_of(name)
    assert re.match(rf"{name}(\(.+\))?$", heading.signature)
    assert heading.summary.endswith(".")
    assert re.fullmatch(r"arXiv \d{4}\.\d{5}", heading.paper)
    file = parse(source_of(name))
    declared = [
        parameter.name.text
        for item in file.items
        if isinstance(item, ast.Pattern | ast.Attention) and item.name.text == name
        for parameter in item.parameters
    ]
    told = re.findall(r"\w+", heading.signature.partition("(")[2])
    assert told == declared[: len(told)]
    if told or name in stdlib_patterns.names():
        assert told == declared or heading.signature.endswith(", ...)")
    text = stdlib_patterns.text(name)
    assert max(map(len, text.splitlines())) <= 88 and len(text) < FILE_BYTES


def test_the_language_page_lists_every_file() -> None:
    for name in stdlib_patterns.files():
        heading = heading_of(name)
        summary = heading.summary.removesuffix(".")
        row = f"| `{heading.signature}` | {summary} | {heading.paper} |"
        assert row in PAGE.splitlines()
    told = re.findall(r"^\| `.+?` \| .+ \| arXiv .+ \|$", PAGE, re.MULTILINE)
    assert len(told) == len(stdlib_patterns.files())


@pytest.mark.parametrize("name", stdlib_patterns.files())
def test_its_picture_shows_something(name: str) -> None:
    seen, head = picture_of(name)
    assert 0 < np.count_nonzero(seen) < seen.size
    assert head >= 0


@pytest.mark.parametrize("name", stdlib_patterns.files())
def test_its_claims_are_proved(name: str) -> None:
    assert driver.check_source(source_of(name)) == ()


@pytest.mark.parametrize("name", stdlib_patterns.names())
def test_its_claims_about_sets_hold_on_a_small_grid(name: str) -> None:
    values = {**ORACLES[name].values, **DIVISIBLE.get(name, {})}
    attention = lower(parse(source_of(name)), "claims", values)
    n = ORACLES[name].n
    for claim in attention.asserts:
        if isinstance(claim, AssertSets):
            left, right = seen(attention, claim.lhs, n), seen(attention, claim.rhs, n)
            if claim.relation is Relation.EQUAL:
                np.testing.assert_array_equal(left, right)
            else:
                assert not (left & ~right).any()


def seen(
    attention: Attention, side: PairSet, n: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """One side of a claim for head 0, or for all heads together."""
    mask = attention.cases[0].mask if side.pattern is None else side.pattern
    heads = range(attention.heads) if side.quantifier.value == "union" else [0]
    found = [dense_mask(mask, head, n, n) for head in heads]
    return np.asarray(np.logical_or.reduce(found))
