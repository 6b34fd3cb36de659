"""Token orders as the checker hands them on."""

from __future__ import annotations

import pytest

from patternc.check import lower
from patternc.ir.nodes import (
    AxesOrder,
    CurveKind,
    CurveOrder,
    LabelOrder,
    OrderCase,
    PhaseOrder,
    TileOrder,
    TokenOrder,
)
from patternc.source import Source
from patternc.syntax.parse import parse

LAYOUT = "layout scene = text[5] + video[f = 13, y = 30, x = 45]\n"


def orders(clauses: str, parameters: str = "", **values: int) -> tuple[OrderCase, ...]:
    text = f"{LAYOUT}attention a{parameters} {{ heads 4 layout scene mask full {clauses} }}"
    return lower(parse(Source("x.pat", text)), None, values).orders


@pytest.mark.parametrize(
    ("written", "order"),
    [
        ("axes(y, x, f)", AxesOrder(("y", "x", "f"))),
        ("tile(f = 6, y = 8, x = 8)", TileOrder((6, 8, 8))),
        ("tile(x = 45, f = 1, y = 30)", TileOrder((1, 30, 45))),
        ("phase(2 * 2)", PhaseOrder(4)),
        ("curve(hilbert)", CurveOrder(CurveKind.HILBERT)),
        ("curve(morton)", CurveOrder(CurveKind.MORTON)),
    ],
)
def test_an_order_of_a_segment(written: str, order: TokenOrder) -> None:
    (case,) = orders(f"order video by {written}")
    assert case == OrderCase((0, 1, 2, 3), "video", order)
    assert case.span.text == f"order video by {written}"


@pytest.mark.parametrize("axes", ["k", "b, k", "h, k", "b, h, k"])
def test_labels(axes: str) -> None:
    clauses = f"order all by labels(cluster) input cluster[{axes}] : int"
    assert orders(clauses) == (OrderCase((0, 1, 2, 3), None, LabelOrder("cluster")),)


def test_orders_by_heads_and_segments() -> None:
    clauses = (
        "order video by axes(y, x, f) for h in {0, 2}"
        " order text by phase(2) for h < 2"
        " order video by phase(n) otherwise"
    )
    found = {
        (case.segment, case.heads): case.order for case in orders(clauses, "(n = 3)")
    }
    assert found == {
        ("video", (0, 2)): AxesOrder(("y", "x", "f")),
        ("video", (1, 3)): PhaseOrder(3),
        ("text", (0, 1)): PhaseOrder(2),
    }
    (moved,) = orders("order all by phase(n)", "(n = 3)", n=5)
    assert moved.order == PhaseOrder(5)


def test_an_order_changes_no_mask() -> None:
    program = f"{LAYOUT}attention a {{ heads 1 layout scene mask q.f == k.f"
    plain = lower(parse(Source("x.pat", program + " }")))
    ordered = lower(parse(Source("x.pat", program + " order video by phase(3) }")))
    assert plain.cases == ordered.cases
