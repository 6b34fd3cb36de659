"""The reverse relation holds the same tiles, of the same kinds, as the forward one."""

from __future__ import annotations

import pytest

from patternc.ir.evaluate import Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    KEY,
    QUERY,
    Attention,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    HeadCase,
    IntOp,
)
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileCover, TileKind
from patternc.plan.reverse import reverse
from patternc.plan.tiling import plan
from tests.programs import DUO, PHI3_SMALL, compiled, one_head

PROGRAMS = {
    "phi3_small": PHI3_SMALL,
    "duo": DUO,
    "a_shape": one_head("streaming(70, 200)"),
    "window": one_head("window(100)"),
    "band": one_head("band(70)"),
    "dilated": one_head("dilated(200, 4)"),
    "blocks": one_head("block_diagonal(96)"),
    "ahead": one_head("q < k"),
    "periodic": one_head("(q // 64 - k // 64) % 5 == 2"),
}
Q_TILES, K_TILES = range(-3, 12), range(9)
Tile = tuple[int, int, TileKind, BoolExpr]


def tiles(cover: TileCover, row: Axis, head: int) -> list[Tile]:
    """Every tile that the ranges visit: query tile, key tile, kind and test."""
    rows, columns = Q_TILES, K_TILES
    if row is Axis.KEY_TILE:
        rows, columns = columns, rows
    found = []
    for at in rows:
        point = Point({row: at, Axis.HEAD: head, Axis.LENGTH: 600})
        for part in cover.ranges or ():
            found += [
                (at, tile, part.kind, part.residual)
                for tile in range_of(part, point, columns)
            ]
    if row is Axis.KEY_TILE:
        return [(qt, kt, kind, test) for kt, qt, kind, test in found]
    return found


def range_of(part: KeyRange, point: Point, columns: range) -> list[int]:
    """The tiles of one range that a call has."""
    if not evaluate(part.guard, point):
        return []
    lo, hi = int(evaluate_int(part.lo, point)), int(evaluate_int(part.hi, point))
    return [x for x in columns if lo <= x < hi and (x - lo) % part.step == 0]


def agree(kernel: Kernel, reversed_: Kernel) -> bool:
    """Whether both visit the same tiles once, with the same tests."""
    for cover, other in zip(kernel.covers, reversed_.covers, strict=True):
        for head in cover.heads[:3]:
            forward = tiles(cover, Axis.QUERY_TILE, head)
            back = tiles(other, Axis.KEY_TILE, head)
            if len(forward) != len(back):
                return False
            if any(tile not in back for tile in forward):
                return False
    return True


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_reverse_visits_the_same_tiles(program: str) -> None:
    kernel = compiled(PROGRAMS[program], Schedule(64, 64))
    reversed_ = reverse(kernel, kernel.schedule)
    assert all(cover.ranges is not None for cover in reversed_.covers)
    assert agree(kernel, reversed_)


def test_a_reverse_that_is_not_one_is_seen() -> None:
    kernel = compiled(PROGRAMS["window"], Schedule(64, 64))
    assert not agree(kernel, reverse(compiled(PROGRAMS["band"]), Schedule(64, 64)))


def test_other_tiles_hold_the_same_pairs() -> None:
    """The key gradient's tile may be another one: twice as many keys."""
    kernel = compiled(PROGRAMS["a_shape"], Schedule(64, 64))
    wide = Schedule(64, 128)
    assert agree(plan(kernel.attention, wide), reverse(kernel, wide))


def test_a_cover_without_ranges_stays_without() -> None:
    product = Compare(CompareOp.LT, Binary(IntOp.MUL, QUERY, KEY), Const(900))
    attention = Attention("product", 1, 1, (), (HeadCase((0,), product),))
    kernel = plan(attention, Schedule(64, 64))
    (cover,) = reverse(kernel, kernel.schedule).covers
    assert cover.ranges is None
    assert cover.reason
