"""Masks that read inputs lie between their two bounds, whatever the inputs hold."""

from __future__ import annotations

import numpy as np
import pytest

from patternc.analysis.approximate import at_least, at_most
from patternc.check import lower
from patternc.ir.evaluate import dense_mask
from patternc.ir.walk import tables_of
from patternc.passes import final_masks
from patternc.source import Source
from patternc.syntax.parse import parse

MASKS = (
    "doc[q] == doc[k]",
    "doc[q - 2] == doc[k // 2]",
    "doc[q] != doc[k + 1] & window(5)",
    "~(doc[q] < doc[k]) | k == 3",
    "doc[k] <= doc[q - 1] & ~(doc[q] > doc[k + 2])",
    "doc[q] >= doc[k] | ~(doc[q] == doc[k] & causal)",
    "doc[doc[q]] == doc[doc[k]]",
    "doc[q] + 1 <= doc[k]",
)


@pytest.mark.parametrize("element", ["int", "int sorted"])
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_lies_between_its_bounds(mask: str, element: str) -> None:
    text = f"attention a {{ heads 1 input doc[k] : {element} mask {mask} }}"
    attention = final_masks(lower(parse(Source("x.pat", text))))
    exact, rising = attention.cases[0].mask, {"doc"} if "sorted" in element else set()
    more, less = at_least(exact, rising), at_most(exact, rising)
    assert not tables_of(more) | tables_of(less)
    upper, lower_bound = dense_mask(more, 0, 12, 12), dense_mask(less, 0, 12, 12)
    generator = np.random.default_rng(1)
    for most in (1, 3, 12) * 8:
        doc = generator.integers(0, most, 12)
        tables = {"doc": np.sort(doc) if rising else doc}
        seen = dense_mask(exact, 0, 12, 12, tables=tables)
        assert not (seen & ~upper).any()
        assert not (lower_bound & ~seen).any()
