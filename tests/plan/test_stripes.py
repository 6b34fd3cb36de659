"""Masks as chosen diagonals, columns and blocks: what is found, and that it is the mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from patternc import driver
from patternc.ir.evaluate import Ints, Point, evaluate
from patternc.ir.nodes import (
    EMPTY_PATTERN,
    All,
    Any,
    Axis,
    BoolExpr,
)
from patternc.ir.text import print_expr
from patternc.plan.kernel import Schedule, Stripes
from patternc.plan.stripes import NoStripes, find_stripes, on_diagonal
from patternc.source import Source

N = 96
INPUTS = """
    input columns[h, k] : bool
    input slash[128] : bool
    input keep[h, q // 32, k // 32] : bool
    input aware[h] : bool
    input doc[k] : int
    input reach[q] : int
"""

FOUND = {
    "causal & columns[h, k]": "columns",
    "causal & (columns[h, k] | slash[q - k] | k < 4 | q - k < 9)": "both",
    "slash[(q - k) * 2 + N - 60] | abs(k - q) < 5": "diagonals",
    "slash[min(q - k, 3) + 4] & causal | columns[h, k + 1] & causal": "both",
    "causal & keep[h, q // 32, k // 32]": "blocks",
    "window(50) & (keep[h, q // 32, k // 32] | k // 64 == 0 | q // 64 == k // 32)": (
        "blocks"
    ),
    "causal & (aware[h] & keep[h, q // 32, k // 32] | ~aware[h] & columns[h, k])": (
        "columns blocks"
    ),
    "causal & (~columns[h, k] | ~slash[q - k])": "both",
}

NOT_FOUND = {
    "causal & doc[q] == doc[k]": "more than a diagonal, key or block",
    "causal & k < reach[q]": "no input is read at",
    "causal & aware[h]": "no input is read at",
    "columns[h, k] & causal | columns[h, k] & window(7)": "different masks",
    "columns[h, k] & slash[q - k]": "under a mask of data",
    "causal & (keep[h, q // 32, k // 32] | columns[h, k])": "more than",
    "causal & keep[h, q // 32, k // 32] | window(9)": "different masks",
}


def mask_of(text: str) -> BoolExpr:
    source = Source(
        "a.pat", f"attention a {{\n    heads 2{INPUTS}    mask {text}\n}}\n"
    )
    return driver.compile_source(source).covers[0].mask


def seen(mask: BoolExpr, q: Ints, k: Ints, tables: Mapping[str, Ints]) -> Ints:
    axes: dict[Axis, int | Ints] = {Axis.QUERY: q, Axis.KEY: k}
    axes |= {Axis.HEAD: 1, Axis.LENGTH: N}
    found = evaluate(mask, Point(axes, {}, tables))
    return np.broadcast_to(np.asarray(found), (N, N))


def joined(stripes: Stripes) -> BoolExpr:
    """The mask that stripes stand for; diagonals are asked of `q - k`, as key 0."""
    columns = All((stripes.columns, stripes.within))
    blocks = stripes.blocks
    chosen = EMPTY_PATTERN if blocks is None else All((blocks.mask, blocks.within))
    return Any((stripes.diagonals, columns, chosen))


@pytest.mark.parametrize("text", FOUND)
def test_stripes_are_the_mask(text: str) -> None:
    mask = mask_of(text)
    stripes = find_stripes(mask, Schedule(32, 16))
    kinds = {
        "diagonals": stripes.diagonals != EMPTY_PATTERN,
        "columns": stripes.columns != EMPTY_PATTERN,
        "blocks": stripes.blocks is not None,
    }
    wanted = FOUND[text].replace("both", "diagonals columns").split()
    assert [name for name, is_there in kinds.items() if is_there] == wanted
    random = np.random.default_rng(5)
    tables = {
        "columns": random.integers(0, 2, (2, N)),
        "slash": random.integers(0, 2, 128),
        "keep": random.integers(0, 2, (2, 3, 3)),
        "aware": np.array([0, random.integers(0, 2)]),
    }
    q, k = np.arange(N)[:, None], np.arange(N)[None, :]
    assert np.array_equal(seen(mask, q, k, tables), seen(joined(stripes), q, k, tables))
    diagonals = seen(stripes.diagonals, q, k, tables)
    turned = seen(on_diagonal(stripes.diagonals), q - k, k, tables)
    assert np.array_equal(diagonals, turned)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_other_masks_have_none(text: str) -> None:
    with pytest.raises(NoStripes, match=NOT_FOUND[text]):
        find_stripes(mask_of(text), Schedule(32, 16))


def test_blocks_that_are_not_whole_tiles_are_none() -> None:
    with pytest.raises(NoStripes, match="not whole tiles"):
        find_stripes(mask_of("causal & keep[h, q // 32, k // 32]"), Schedule(64, 16))


def test_a_union_of_many_terms_is_not_looked_through() -> None:
    union = " & ".join(f"(columns[h, k] | k < {at})" for at in range(6))
    with pytest.raises(NoStripes, match="more than 32 terms"):
        find_stripes(mask_of(f"causal & {union}"), Schedule())


def test_explain_shows_them() -> None:
    stripes = find_stripes(mask_of("causal & (k < 3 | columns[h, k])"), Schedule())
    assert print_expr(stripes.columns) == "k < 3 | columns[h, k] != 0"
    assert print_expr(stripes.within) == "k <= q"
