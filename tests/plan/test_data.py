"""Tiles that depend on inputs: exact, and without any work of n_q x n_k."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.analysis.interval import Bounds
from patternc.ir.evaluate import Ints, dense_mask
from patternc.ir.nodes import (
    HEAD,
    KEY,
    QUERY,
    All,
    Attention,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    HeadCase,
    IntExpr,
    IntOp,
    LabelOrder,
    OrderCase,
    Read,
)
from patternc.plan import quadtree
from patternc.plan.expand import count_tiles, live_tiles, plan_mask
from patternc.plan.kernel import Schedule
from patternc.plan.quadtree import Question
from patternc.plan.tables import TableBounds
from patternc.plan.tiling import plan
from tests.kernels import BACK, CAUSAL, attention_of

SCHEDULE = Schedule(128, 128)
SAME = Compare(CompareOp.EQ, Read("doc", (QUERY,)), Read("doc", (KEY,)))


def documents(n: int, length: int) -> dict[str, Ints]:
    return {"doc": np.arange(n) // length}


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of tiles that are looked at point by point, as they come up."""
    found: list[int] = []
    plain = quadtree._look

    def counting(question: Question, qt: Ints, kt: Ints) -> quadtree.TileList:
        found.append(qt.size)
        return plain(question, qt, kt)

    monkeypatch.setattr(quadtree, "_look", counting)
    return found


def test_documents_at_a_million_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """8192 x 8192 tiles, of which about 8 in a row are live."""
    n = 1 << 20
    looked = looked_at(monkeypatch)
    kernel = plan(attention_of(All((CAUSAL, SAME)), 1), SCHEDULE)
    tables = documents(n, 1000)  # no multiple of a tile
    count = count_tiles(kernel, 0, n, n, 0, {}, tables)
    assert 4 * 8192 < count.visited < 8 * 8192
    assert looked[0] < 3 * 8192  # the diagonal and the ends of documents
    assert count.partial <= looked[0]


def test_documents_that_are_mixed_lie_together_in_the_order_of_their_labels() -> None:
    n, case = 4096, HeadCase((0,), SAME)
    orders = (OrderCase((0,), None, LabelOrder("doc")),)
    tables = {"doc": np.random.default_rng(0).integers(0, 16, n)}
    visited = []
    for order in ((), orders):
        kernel = plan(Attention("it", 1, 1, (), (case,), orders=order), SCHEDULE)
        visited.append(count_tiles(kernel, 0, n, n, 0, {}, tables).visited)
    assert visited[0] == 32 * 32
    assert visited[1] < visited[0] / 6


def test_a_window_for_each_token_is_decided_by_its_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`0 <= q - k <= width[q]`: a comparison parts into what q and what k say."""
    n = 1 << 14
    looked = looked_at(monkeypatch)
    near = Compare(CompareOp.LE, BACK, Read("width", (QUERY,)))
    kernel = plan(attention_of(All((CAUSAL, near)), 1), SCHEDULE)
    width = np.full(n, 1000) + np.arange(n) % 7
    tiles = live_tiles(kernel.covers[0], SCHEDULE, 0, n, n, 0, {}, {"width": width})
    assert tiles.qt.size < 10 * 128
    assert looked[0] <= 3 * 128


def test_a_table_of_blocks_is_not_looked_at_point_by_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = looked_at(monkeypatch)
    n, blocks = 1 << 14, 128
    rows, columns = (block_of(token) for token in (QUERY, KEY))
    keep = Compare(CompareOp.NE, Read("keep", (HEAD, rows, columns)), Const(0))
    kernel = plan(attention_of(keep, 2), SCHEDULE)
    table = np.random.default_rng(1).random((2, blocks, blocks)) < 0.05
    for head in (0, 1):
        tiles = live_tiles(
            kernel.covers[0], SCHEDULE, head, n, n, 0, {}, {"keep": table}
        )
        assert np.array_equal(tiles.qt * blocks + tiles.kt, np.flatnonzero(table[head]))
        assert not tiles.partial.any()
    assert looked == [0, 0]


def block_of(token: IntExpr) -> IntExpr:
    return Binary(IntOp.FLOORDIV, token, Const(128))


@given(st.integers(0, 2**32 - 1), st.sampled_from(((1, 1), (5, 9), (16, 16), (3, 40))))
def test_bounds_of_a_table_are_sound_and_single_elements_exact(
    seed: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-50, 50, shape)
    read = Read("table", (QUERY, KEY))
    boxes = []
    for size in shape:
        ends = np.sort(rng.integers(-2, size + 2, (2, 30)), axis=0)
        boxes.append(Bounds(ends[0], ends[1]))
    found = TableBounds({"table": table}).bounds(read, (boxes[0], boxes[1]))
    padded = np.pad(table, 2)  # beyond the table reads are 0
    for at in range(30):
        (r0, r1), (c0, c1) = ((box.lo[at] + 2, box.hi[at] + 3) for box in boxes)
        part = padded[r0:r1, c0:c1]
        assert found.lo[at] <= part.min()
        assert part.max() <= found.hi[at]
        if part.size == 1:
            assert found.lo[at] == found.hi[at]


@pytest.mark.parametrize("table", [np.zeros((0,)), np.zeros((4,)), np.ones((64,))])
def test_tables_of_any_length_read_0_beyond(table: Ints) -> None:
    mask = Compare(CompareOp.NE, Read("table", (BACK,)), Const(0))
    kernel = plan(attention_of(mask, 1), Schedule(16, 16))
    tables = {"table": table.astype(np.int64)}
    expected = dense_mask(mask, 0, 50, 40, None, {}, tables)
    found = plan_mask(kernel, 0, 50, 40, None, {}, tables)
    assert np.array_equal(found, expected)


def test_a_scalar_of_the_batch() -> None:
    prefix: BoolExpr = Compare(CompareOp.LT, KEY, Read("prefix", ()))
    kernel = plan(attention_of(prefix, 1), Schedule(16, 16))
    for value in (0, 16, 25, 99):
        tables = {"prefix": np.asarray(value)}
        found = plan_mask(kernel, 0, 40, 40, None, {}, tables)
        assert np.array_equal(found, np.broadcast_to(np.arange(40) < value, (40, 40)))
