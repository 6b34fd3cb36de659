"""Token orders: permutations that keep to their segments, and never change a result."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.ir.evaluate import Point, dense_mask, evaluate_int
from patternc.ir.nodes import (
    KEY,
    QUERY,
    Attention,
    AxesOrder,
    Axis,
    Compare,
    CompareOp,
    CurveKind,
    CurveOrder,
    LabelOrder,
    Layout,
    OrderCase,
    PhaseOrder,
    Read,
    Segment,
    TileOrder,
    TokenOrder,
)
from patternc.plan.expand import live_tiles, plan_mask
from patternc.plan.kernel import Schedule
from patternc.plan.order import token_order
from patternc.plan.tiling import plan
from tests.kernels import CAUSAL, SMALL, attention_of
from tests.plan.order_formulas import token_expr
from tests.strategies import Data, data_attentions, layouts, orders_of, schedules

VIDEO = Segment("video", 7, 4 * 6 * 8, (("f", 4), ("y", 6), ("x", 8)))
LAYOUT = Layout("clip", (Segment("text", 0, 7), VIDEO))


def order_of(order: TokenOrder, segment: str | None = "video") -> OrderCase:
    return OrderCase((0,), segment, order)


def cube(*shape: int) -> Layout:
    axes = tuple((f"axis{at}", size) for at, size in enumerate(shape))
    return Layout("cube", (Segment("cube", 0, int(np.prod(shape)), axes),))


@given(st.data())
def test_an_order_permutes_each_segment_in_place(data: st.DataObject) -> None:
    layout = data.draw(layouts)
    orders = data.draw(orders_of(layout))
    n = layout.size
    tables = {"label": np.random.default_rng(n).integers(0, 9, n)}
    tokens = token_order(orders, layout, n, tables)
    assert np.array_equal(np.sort(tokens), np.arange(n))
    for segment in layout.segments:
        if not any(case.segment is None for case in orders):
            part = tokens[segment.start : segment.start + segment.size]
            assert part.min() == segment.start
            assert part.max() == segment.start + segment.size - 1
            if not any(case.segment == segment.name for case in orders):
                assert (np.diff(part) == 1).all()


@given(st.data())
def test_the_expression_is_the_array(data: st.DataObject) -> None:
    layout = data.draw(layouts)
    for case in data.draw(orders_of(layout)):
        n = layout.size
        segment = next(
            (s for s in layout.segments if s.name == case.segment), Segment("", 0, n)
        )
        expr = token_expr(case, layout)
        if expr is not None:
            at = np.arange(segment.start, segment.start + segment.size)
            found = evaluate_int(expr, Point({Axis.QUERY: at, Axis.LENGTH: n}))
            assert np.array_equal(found, token_order((case,), layout, n)[at])


@pytest.mark.parametrize(
    ("order", "is_affine"),
    [
        (PhaseOrder(4), True),
        (PhaseOrder(5), False),
        (AxesOrder(("y", "x", "f")), True),
        (TileOrder((2, 3, 4)), True),
        (TileOrder((2, 4, 4)), False),
        (CurveOrder(CurveKind.MORTON), False),
        (LabelOrder("label"), False),
    ],
    ids=str,
)
def test_which_orders_have_an_expression(order: TokenOrder, is_affine: bool) -> None:
    assert (token_expr(order_of(order), LAYOUT) is not None) == is_affine


def test_a_stride_of_the_whole_sequence_reads_the_length() -> None:
    case = order_of(PhaseOrder(4), None)
    expr = token_expr(case, None)
    assert expr is not None
    for n in (4, 16, 64):
        at = Point({Axis.QUERY: np.arange(n), Axis.LENGTH: n})
        assert np.array_equal(evaluate_int(expr, at), token_order((case,), None, n))


def test_orders_by_hand() -> None:
    small = cube(2, 3)
    cases: dict[TokenOrder, list[int]] = {}
    cases[AxesOrder(("axis1", "axis0"))] = [0, 3, 1, 4, 2, 5]
    cases[TileOrder((2, 2))] = [0, 1, 3, 4, 2, 5]  # the last box is a smaller one
    cases[PhaseOrder(2)] = [0, 2, 4, 1, 3, 5]
    cases[CurveOrder(CurveKind.MORTON)] = [0, 1, 3, 4, 2, 5]
    cases[CurveOrder(CurveKind.HILBERT)] = [0, 3, 4, 1, 2, 5]
    cases[LabelOrder("label")] = [1, 3, 5, 0, 2, 4]
    tables = {"label": np.asarray([1, 0] * 3)}
    for order, expected in cases.items():
        found = token_order((order_of(order, "cube"),), small, 6, tables)
        assert found.tolist() == expected, order


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (4, 4, 4), (8, 8, 8)])
def test_the_hilbert_curve_goes_to_a_neighbour(shape: tuple[int, ...]) -> None:
    case = order_of(CurveOrder(CurveKind.HILBERT), "cube")
    tokens = token_order((case,), cube(*shape), int(np.prod(shape)))
    at = np.asarray(np.unravel_index(tokens, shape))
    assert (abs(np.diff(at, axis=1)).sum(axis=0) == 1).all()


@pytest.mark.parametrize(
    ("order", "segment", "n", "message"),
    [
        (PhaseOrder(4), "video", 100, "the layout `clip` has 199 tokens, not 100"),
        (PhaseOrder(4), "audio", 199, "the segment `audio`, which is not there"),
        (AxesOrder(("f", "y")), "video", 199, "`video` has the axes f, y, x"),
        (AxesOrder(("y", "x", "f")), "text", 199, "`text` has no axes"),
        (TileOrder((2, 2)), "video", 199, "a box in `video` has 3 sizes"),
        (LabelOrder("label"), "video", 199, "`label` has 5 labels"),
        (LabelOrder("heads"), "video", 199, "`heads` has 0 x 199 labels"),
        (LabelOrder("float"), "video", 199, "`float` must be integers"),
        (LabelOrder("none"), "video", 199, "the input `none`, which is not given"),
    ],
)
def test_what_does_not_fit_is_named(
    order: TokenOrder, segment: str, n: int, message: str
) -> None:
    tables = {
        "label": np.zeros(5, dtype=np.int64),
        "heads": np.zeros((0, 199), dtype=np.int64),
        "float": np.zeros(199),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        token_order((order_of(order, segment),), LAYOUT, n, tables)


def test_two_orders_of_a_token_are_an_error() -> None:
    cases = (order_of(PhaseOrder(2), None), order_of(PhaseOrder(3)))
    with pytest.raises(ValueError, match="two orders of the tokens of `video`"):
        token_order(cases, LAYOUT, 199)


def test_labels_may_differ_by_head() -> None:
    labels = np.stack([np.arange(6), -np.arange(6)])
    case = order_of(LabelOrder("label"), None)
    found = [token_order((case,), None, 6, {"label": labels}, h) for h in (0, 1)]
    assert [order.tolist() for order in found] == [
        [0, 1, 2, 3, 4, 5],
        [5, 4, 3, 2, 1, 0],
    ]


@given(data_attentions(), schedules)
def test_no_order_and_no_data_change_the_mask(data: Data, schedule: Schedule) -> None:
    kernel = plan(data.attention, schedule)
    n = data.length
    for head in (0, 1):
        mask = data.attention.case_of(head).mask
        expected = dense_mask(mask, head, n, n, 0, {}, data.tables)
        found = plan_mask(kernel, head, n, n, 0, {}, data.tables)
        assert np.array_equal(found, expected)


@given(data_attentions(), schedules, st.integers(1, 60), st.integers(-9, 60))
def test_calls_that_are_not_square_take_plain_tiles(
    data: Data, schedule: Schedule, n_q: int, q_offset: int
) -> None:
    kernel = plan(data.attention, schedule)
    n = data.length
    mask = data.attention.case_of(0).mask
    expected = dense_mask(mask, 0, n_q, n, q_offset, {}, data.tables)
    found = plan_mask(kernel, 0, n_q, n, q_offset, {}, data.tables)
    assert np.array_equal(found, expected)


def test_an_order_makes_tiles_of_positions() -> None:
    cases = attention_of(CAUSAL, 1).cases
    orders = (order_of(PhaseOrder(2), None),)
    kernel = plan(Attention("it", 1, 1, (), cases, orders=orders), SMALL)
    (cover,) = kernel.covers
    tiles = live_tiles(cover, SMALL, 0, 64, 64, 0, {})
    assert tiles.tokens is not None
    assert tiles.tokens.tolist() == [*range(0, 64, 2), *range(1, 64, 2)]
    assert cover.ranges is not None  # for the calls below
    for sizes in ((63, 64, 0), (64, 64, 1), (1, 64, 63)):
        assert not cover.is_ordered(*sizes)
        assert live_tiles(cover, SMALL, 0, *sizes, {}).tokens is None


def test_an_order_fits_the_layout_alone() -> None:
    cases = attention_of(CAUSAL, 1).cases
    attention = Attention(
        "it", 1, 1, (), cases, layout=LAYOUT, orders=(order_of(PhaseOrder(2)),)
    )
    (cover,) = plan(attention, SMALL).covers
    assert cover.is_ordered(199, 199, 0)
    assert not cover.is_ordered(198, 198, 0)


def test_heads_of_one_mask_may_have_orders_of_their_own() -> None:
    cases = attention_of(CAUSAL, 3).cases
    orders = (
        OrderCase((0, 2), None, PhaseOrder(2)),
        OrderCase((1,), None, PhaseOrder(3)),
    )
    kernel = plan(Attention("it", 3, 1, (), cases, orders=orders), SMALL)
    assert [cover.heads for cover in kernel.covers] == [(0, 2), (1,)]
    assert [cover.order for cover in kernel.covers] == [orders[:1], orders[1:]]


def test_an_input_that_is_missing_is_named() -> None:
    mask = Compare(CompareOp.EQ, Read("doc", (QUERY,)), Read("doc", (KEY,)))
    kernel = plan(attention_of(mask), SMALL)
    with pytest.raises(LookupError, match="the input `doc`"):
        plan_mask(kernel, 0, 20, 20)
