"""Tiles without a closed form: exact, and cheap where little is live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.analysis.interval import Box, Possible, possible
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import BoolExpr
from patternc.plan import quadtree
from patternc.plan.expand import count_tiles
from patternc.plan.kernel import Schedule
from patternc.plan.quadtree import Question, list_tiles
from tests.programs import compiled, one_head
from tests.strategies import masks


@given(
    masks(affine=False),
    st.integers(-4, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from((8, 16)),
    st.sampled_from((8, 16)),
    st.booleans(),
)
def test_lists_are_exact(
    mask: BoolExpr,
    first: int,
    rows: int,
    columns: int,
    block_q: int,
    block_k: int,
    shuffled: bool,
) -> None:
    """With tokens in their own order and in any other."""
    n_q, n_k = rows * block_q, columns * block_k
    q, k = np.arange(n_q) + first * block_q, np.arange(n_k)
    if shuffled:
        rng = np.random.default_rng(first + 4)
        q, k = rng.permutation(q), rng.permutation(k)
    queries, keys = q.reshape(rows, block_q), k.reshape(columns, block_k)
    tiles = list_tiles(Question(mask, 1, n_k, queries, keys, {}, {}))
    seen = dense_mask(mask, 1, n_q, n_k, first * block_q)
    seen = seen[np.ix_(q - first * block_q, k)]
    blocks = seen.reshape(rows, block_q, columns, block_k)
    kinds = np.zeros((rows, columns), dtype=int)
    np.add.at(kinds, (tiles.qt, tiles.kt), np.where(tiles.partial, 1, 2))
    expected = np.where(blocks.all((1, 3)), 2, np.where(blocks.any((1, 3)), 1, 0))
    assert np.array_equal(kinds, expected)


def test_the_cost_follows_the_live_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thin product pattern at a million tokens: boxes looked at, not seconds."""
    kernel = compiled(one_head("q * k < 1000 & k <= q"), Schedule(64, 64))
    looked = 0

    def counting(mask: BoolExpr, box: Box) -> Possible:
        nonlocal looked
        looked += max(bounds.lo.size for bounds in box.known.values())
        return possible(mask, box)

    monkeypatch.setattr(quadtree, "possible", counting)
    tiles = count_tiles(kernel, 0, 1 << 20, 1 << 20)
    assert tiles.visited == 1 << 14  # the column of keys 0..63, which query 0 sees
    assert looked < 20 * tiles.visited


def test_nothing_to_list() -> None:
    mask = compiled(one_head("q * k < 1000")).covers[0].mask
    some, none = np.zeros((4, 16), dtype=np.int64), np.zeros((0, 16), dtype=np.int64)
    assert list_tiles(Question(mask, 0, 0, some, none, {}, {})).qt.size == 0
    assert list_tiles(Question(mask, 0, 9, none, some, {}, {})).qt.size == 0
