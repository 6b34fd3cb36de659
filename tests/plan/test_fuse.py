"""Block fusion: overlapping and adjacent terms are one range, and no tile comes twice."""

from __future__ import annotations

import time

import islpy as isl
import pytest

from patternc.analysis.sets import SetBuilder
from patternc.ir.nodes import (
    FULL_PATTERN,
    KEY_TILE,
    QUERY,
    QUERY_TILE,
    Any,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
)
from patternc.plan.expand import plan_mask
from patternc.plan.fuse import fuse_ranges
from patternc.plan.kernel import KeyRange, Schedule, TileKind
from patternc.plan.tiling import MAX_DIVISIONS
from tests.programs import compiled, one_head

SCHEDULE = Schedule(64, 64)


@pytest.mark.parametrize(
    ("mask", "ranges"),
    [
        ("window(64) | window(200) | window(128)", 3),  # one window: edge, full, edge
        ("k < 64 | 64 <= k & k < 128 | 100 <= k & k < 192", 1),  # side by side
        ("k // 16 == q // 16 | k // 8 == q // 8", 1),  # blocks smaller than a tile
        ("full | causal", 1),
    ],
)
def test_a_union_becomes_few_ranges(mask: str, ranges: int) -> None:
    (cover,) = compiled(one_head(mask), SCHEDULE).covers
    assert cover.ranges is not None
    assert len(cover.ranges) == ranges
    assert cover.pieces >= ranges


def test_pieces_say_what_fusion_saves() -> None:
    apart = " | ".join(f"{a} <= k & k < {a + 10}" for a in (0, 20, 40))
    (cover,) = compiled(one_head(apart), SCHEDULE).covers
    assert cover.ranges is not None
    assert (cover.pieces, len(cover.ranges)) == (3, 1)


def at_row(op: CompareOp, row: int) -> BoolExpr:
    return Compare(op, QUERY_TILE, Const(row))


def range_of(guard: BoolExpr, kind: TileKind = TileKind.PARTIAL) -> KeyRange:
    residual = Compare(CompareOp.LE, Const(3), QUERY)
    test = residual if kind is TileKind.PARTIAL else FULL_PATTERN
    return KeyRange(kind, Const(0), QUERY_TILE, 1, guard, test)


def fused(*ranges: KeyRange) -> tuple[KeyRange, ...]:
    context = isl.Context()
    rows = SetBuilder(context, (), ("qt",))
    return fuse_ranges(ranges, rows, rows.known(1).params())


def test_ranges_that_differ_in_their_guards_are_one() -> None:
    low, high = at_row(CompareOp.LT, 3), at_row(CompareOp.GT, 5)
    assert fused(range_of(low), range_of(high)) == (range_of(Any((low, high))),)


def test_a_guard_that_always_holds_goes() -> None:
    low, high = at_row(CompareOp.LT, 3), at_row(CompareOp.GE, 3)
    assert fused(range_of(low), range_of(high)) == (range_of(FULL_PATTERN),)


def test_other_ranges_stay() -> None:
    low, high = at_row(CompareOp.LT, 3), at_row(CompareOp.GE, 3)
    two = (range_of(low), range_of(high, TileKind.FULL))
    assert fused(*two) == two
    longer = KeyRange(TileKind.PARTIAL, Const(0), KEY_TILE, 1, high, two[0].residual)
    assert fused(two[0], longer) == (two[0], longer)


PATHOLOGICAL = (
    "(q // 7 % 5 + k // 3 % 11) % 4 == (k // 13 + q // 17 % 3) % 6 // 2",
    "(k + q) // 2 // 32 < k // 13 + (k - q) - q % 32 // 11",
    "q % 13 + (k + k) // 7 <= (q - k + q % 2) // 32",
)


@pytest.mark.parametrize("mask", PATHOLOGICAL)
def test_many_nested_divisions_end_in_lists(mask: str) -> None:
    start = time.perf_counter()
    kernel = compiled(one_head(mask), SCHEDULE)
    assert time.perf_counter() - start < 8  # 1 s alone; machines are shared
    (cover,) = kernel.covers
    assert cover.ranges is None
    assert "too much work" in cover.reason or "too many" in cover.reason
    assert plan_mask(kernel, 0, 200, 200, 0).shape == (200, 200)


def test_too_many_divisions_are_not_even_tried() -> None:
    mask = " & ".join(f"q // {d} != k // {d}" for d in range(3, 7))
    (cover,) = compiled(one_head(mask), SCHEDULE).covers
    assert cover.ranges is None
    assert f"in {2 * (MAX_DIVISIONS - 2)} ways" in cover.reason
