"""Which orders are found, what they gain, and that the others stay as they are."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import (
    KEY,
    QUERY,
    Abs,
    All,
    Any,
    Attention,
    AxesOrder,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    HeadCase,
    IntExpr,
    IntOp,
    Layout,
    OrderCase,
    Param,
    PhaseOrder,
    Read,
    RuntimeParam,
    Segment,
    TileOrder,
)
from patternc.ir.text import print_order
from patternc.passes.reorder import Reorder
from patternc.plan.expand import count_tiles, plan_mask
from patternc.plan.kernel import Schedule
from patternc.plan.tiling import plan
from tests.kernels import BACK, CAUSAL, attention_of, streaming, window
from tests.strategies import Data, data_attentions, masks

SQUARE = Schedule(128, 128)


def op(kind: IntOp, lhs: IntExpr, rhs: int | IntExpr) -> IntExpr:
    return Binary(kind, lhs, Const(rhs) if isinstance(rhs, int) else rhs)


def every(step: int) -> BoolExpr:
    """`(q - k) % step == 0`."""
    return Compare(CompareOp.EQ, op(IntOp.MOD, BACK, step), Const(0))


def video(*sizes: int, text: int = 0) -> Layout:
    axes = tuple(zip(("f", "y", "x")[-len(sizes) :], sizes, strict=True))
    segments = (Segment("text", 0, text),) if text else ()
    segment = Segment("video", text, math.prod(sizes), axes)
    return Layout("clip", (*segments, segment))


def coordinate(token: IntExpr, stride: int, size: int) -> IntExpr:
    return op(IntOp.MOD, op(IntOp.FLOORDIV, token, stride), size)


def near(stride: int, size: int, reach: int) -> BoolExpr:
    """`abs(q.a - k.a) <= reach` for one axis."""
    at = [coordinate(token, stride, size) for token in (QUERY, KEY)]
    return Compare(CompareOp.LE, Abs(op(IntOp.SUB, *at)), Const(reach))


def temporal() -> BoolExpr:
    """`abs(q.y * 32 + q.x - k.y * 32 - k.x) <= 2`."""
    y = [op(IntOp.MUL, coordinate(token, 32, 32), 32) for token in (QUERY, KEY)]
    x = [op(IntOp.MOD, token, 32) for token in (QUERY, KEY)]
    apart = op(IntOp.SUB, op(IntOp.SUB, op(IntOp.ADD, y[0], x[0]), y[1]), x[1])
    return Compare(CompareOp.LE, Abs(apart), Const(2))


def with_layout(mask: BoolExpr, layout: Layout | None) -> Attention:
    return Attention("it", 1, 1, (), (HeadCase((0,), mask),), layout=layout)


def shares(attention: Attention, n: int) -> tuple[float, float]:
    """Tiles visited over all tiles, as the program is and reordered."""
    found = []
    for one in (attention, Reorder(SQUARE)(attention)):
        count = count_tiles(plan(one, SQUARE), 0, n, n, 0)
        found.append(count.visited / count.total)
    return found[0], found[1]


def test_a_dilated_window_goes_by_phases() -> None:
    attention = attention_of(All((window(4096), every(4))), 1)
    assert Reorder(SQUARE)(attention).orders == (OrderCase((0,), None, PhaseOrder(4)),)
    before, after = shares(attention, 16_384)
    assert before == pytest.approx(0.226, abs=0.001)
    assert after <= 0.07


def test_temporal_heads_go_by_place_before_frame() -> None:
    attention = with_layout(temporal(), video(16, 32, 32))
    order = Reorder(SQUARE)(attention).orders[0].order
    assert isinstance(order, AxesOrder)
    assert order.axes[-1] == "f"
    before, after = shares(attention, 16_384)
    assert before > 0.33
    assert after <= 0.024


def test_a_neighbourhood_goes_by_boxes() -> None:
    mask = All((near(1024, 16, 2), near(32, 32, 6), near(1, 32, 6)))
    attention = with_layout(mask, video(16, 32, 32))
    order = Reorder(SQUARE)(attention).orders[0].order
    assert isinstance(order, TileOrder)
    before, after = shares(attention, 16_384)
    assert after < 0.9 * before


def test_text_beside_the_video_stays_in_place() -> None:
    layout = video(8, 16, 16, text=100)
    shifted = [op(IntOp.SUB, token, 100) for token in (QUERY, KEY)]
    place = [op(IntOp.MOD, token, 256) for token in shifted]
    same_place = Compare(CompareOp.EQ, place[0], place[1])
    text = Compare(CompareOp.LT, KEY, Const(100))
    attention = with_layout(Any((text, same_place)), layout)
    (case,) = Reorder(SQUARE)(attention).orders
    assert case.segment == "video"
    expected = dense_mask(attention.cases[0].mask, 0, layout.size, layout.size)
    kernel = plan(Reorder(SQUARE)(attention), SQUARE)
    found = plan_mask(kernel, 0, layout.size, layout.size)
    assert np.array_equal(found, expected)


BLOCKS = [op(IntOp.FLOORDIV, token, 64) for token in (QUERY, KEY)]
S2 = All(
    (
        Compare(CompareOp.LE, BLOCKS[1], BLOCKS[0]),
        Any(
            (
                Compare(CompareOp.LT, op(IntOp.SUB, *BLOCKS), Const(16)),
                Compare(CompareOp.EQ, op(IntOp.MOD, BLOCKS[1], 8), Const(7)),
            )
        ),
    )
)


@pytest.mark.parametrize(
    ("mask", "layout"),
    [
        (CAUSAL, None),
        (window(100), None),
        (streaming(4, 256), None),
        (S2, None),
        (CAUSAL, video(8, 16, 16)),
        (near(256, 8, 1), video(8, 16, 16)),  # whole frames lie together already
    ],
    ids=["causal", "window", "streaming", "S2", "causal video", "spatial"],
)
def test_what_gains_nothing_keeps_its_order(
    mask: BoolExpr, layout: Layout | None
) -> None:
    attention = with_layout(mask, layout)
    assert Reorder(SQUARE)(attention) == attention


def test_an_order_of_the_program_stays() -> None:
    given_order = (OrderCase((0,), None, PhaseOrder(3)),)
    attention = Attention(
        "it", 1, 1, (), (HeadCase((0,), every(4)),), orders=given_order
    )
    assert Reorder(SQUARE)(attention).orders == given_order


def test_data_and_unknown_parameters_are_not_searched() -> None:
    reads = Compare(CompareOp.EQ, Read("doc", (QUERY,)), Read("doc", (KEY,)))
    for mask, params in (
        (All((every(4), reads)), ()),
        (All((every(4), window(Param("w")))), (RuntimeParam("w", None),)),
    ):
        attention = attention_of(mask, 1, params=params)
        assert Reorder(SQUARE)(attention) == attention
        assert Reorder(SQUARE).notes(attention) == ()


def test_the_notes_say_what_is_gained() -> None:
    dilated = attention_of(All((window(4096), every(4))), 2)
    (line,) = Reorder(SQUARE).notes(dilated)
    assert line.startswith("heads {0..1}: order all by phase(4) visits 6.")
    assert "instead of 22." in line
    assert "128 x 128 tiles, N = 16384" in line
    (line,) = Reorder(SQUARE).notes(attention_of(S2, 1))
    assert "none of 1 orders saves more than 10%" in line


def test_orders_are_written_as_the_language_does() -> None:
    layout = video(2, 4, 8)
    case = OrderCase((0,), "video", TileOrder((1, 2, 4)))
    written = f"order {print_order(case, layout)}"
    assert written == "order video by tile(f = 1, y = 2, x = 4)"
    case = OrderCase((0,), "video", AxesOrder(("y", "x", "f")))
    assert f"order {print_order(case, layout)}" == "order video by axes(y, x, f)"


def test_a_large_video_is_searched_in_seconds() -> None:
    """13 x 30 x 45 with text before it: some 30 orders of 17776 tokens."""
    mask = All((near(1350, 13, 2), near(45, 30, 6), near(1, 45, 6)))
    start = time.perf_counter()
    Reorder(SQUARE)(with_layout(mask, video(13, 30, 45, text=226)))
    assert time.perf_counter() - start < 10  # 0.6 s alone; machines are shared


@given(masks(affine=False, heads=False), st.sampled_from((64, 200)))
def test_no_order_that_is_found_changes_the_mask(mask: BoolExpr, n: int) -> None:
    schedule = Schedule(32, 32)
    kernel = plan(Reorder(schedule)(attention_of(mask, 1)), schedule)
    assert np.array_equal(plan_mask(kernel, 0, n, n, 0), dense_mask(mask, 0, n, n, 0))


@given(data_attentions())
def test_a_layout_is_searched_and_nothing_changes(data: Data) -> None:
    schedule = Schedule(16, 16)
    case = HeadCase((0, 1), All((near(3, 4, 1), CAUSAL)))
    attention = Attention("it", 2, 1, (), (case,), layout=data.attention.layout)
    kernel = plan(Reorder(schedule)(attention), schedule)
    expected = dense_mask(case.mask, 0, data.length, data.length, 0)
    assert np.array_equal(plan_mask(kernel, 0, data.length, data.length, 0), expected)
