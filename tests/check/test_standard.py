"""The standard patterns: each file declares its own name and makes true claims."""

from __future__ import annotations

import numpy as np
import pytest

from patternc import stdlib_patterns
from patternc.check import check_file, lower
from patternc.check.scope import Scope
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import AssertSets, PairSet, Relation
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse

EXPECTED = [
    "band",
    "block_diagonal",
    "causal",
    "dilated",
    "sink",
    "streaming",
    "window",
]


def test_the_first_seven() -> None:
    assert list(stdlib_patterns.names()) == EXPECTED
    with pytest.raises(KeyError):
        stdlib_patterns.text("../__init__")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_declares_one_pattern_of_its_name(name: str) -> None:
    file = parse(Source(f"{name}.pat", stdlib_patterns.text(name)))
    patterns = [item for item in file.items if isinstance(item, ast.Pattern)]
    assert [pattern.name.text for pattern in patterns] == [name]
    assert check_file(file) == ()
    found = Scope().find(name)
    assert found is not None and found[0] == patterns[0]
    assert stdlib_patterns.text(name).startswith(f"# {name}")


@pytest.mark.parametrize("name", EXPECTED)
def test_its_claims_about_sets_hold_on_a_small_grid(name: str) -> None:
    file = parse(Source(f"{name}.pat", stdlib_patterns.text(name)))
    attention = lower(file, "claims")
    n = 150

    def seen(side: PairSet) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        mask = attention.cases[0].mask if side.pattern is None else side.pattern
        return dense_mask(mask, 0, n, n)

    claims = [c for c in attention.asserts if isinstance(c, AssertSets)]
    for claim in claims:
        left, right = seen(claim.lhs), seen(claim.rhs)
        if claim.relation is Relation.EQUAL:
            np.testing.assert_array_equal(left, right)
        else:
            assert not (left & ~right).any()
