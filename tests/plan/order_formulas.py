"""Orders as formulas, where sums of `//` and `%` give them.

In: an order's case, a layout. Out: the token at a position, as an expression of the IR:
another definition of what `patternc.plan.order` gives as an array.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import assert_never

from patternc.ir.fold import fold_int
from patternc.ir.nodes import (
    LENGTH,
    QUERY,
    AxesOrder,
    Binary,
    Const,
    CurveOrder,
    IntExpr,
    IntOp,
    LabelOrder,
    Layout,
    OrderCase,
    PhaseOrder,
    Segment,
    TileOrder,
)


def token_expr(case: OrderCase, layout: Layout | None) -> IntExpr | None:
    """The token at a position of the case's segment; `Axis.QUERY` is the position.

    None where no sum of `//` and `%` gives it: curves, labels, boxes and strides that
    do not divide. A stride of the whole sequence reads `N` and holds where the stride
    divides it.
    """
    order, segment = case.order, _named(case, layout)
    if segment is None:
        if case.segment is not None or not isinstance(order, PhaseOrder):
            return None
        size = layout.size if layout is not None else None
        return _phases(QUERY, size, order.stride)
    at = _op(IntOp.SUB, QUERY, Const(segment.start))
    sizes = tuple(size for _, size in segment.axes)
    match order:
        case PhaseOrder():
            found = _phases(at, segment.size, order.stride)
        case AxesOrder():
            found = _permuted(at, sizes, _places(order.axes, segment))
        case TileOrder():
            found = _boxes(at, sizes, order.sizes)
        case CurveOrder() | LabelOrder():
            return None
        case _:
            assert_never(order)
    if found is None:
        return None
    return fold_int(_op(IntOp.ADD, found, Const(segment.start)))


def _named(case: OrderCase, layout: Layout | None) -> Segment | None:
    segments = layout.segments if layout is not None else ()
    return next((s for s in segments if s.name == case.segment), None)


def _op(op: IntOp, lhs: IntExpr, rhs: IntExpr) -> IntExpr:
    return Binary(op, lhs, rhs)


def _phases(at: IntExpr, size: int | None, stride: int) -> IntExpr | None:
    """Position `p` holds the token `p % (size / stride) * stride + p // (size / stride)`.

    The size is `N` if it is None.
    """
    if size is None:
        length: IntExpr = _op(IntOp.FLOORDIV, LENGTH, Const(stride))
    elif size % stride == 0:
        length = Const(size // stride)
    else:
        return None
    row = _op(IntOp.MUL, _op(IntOp.MOD, at, length), Const(stride))
    return fold_int(_op(IntOp.ADD, row, _op(IntOp.FLOORDIV, at, length)))


def _places(axes: tuple[str, ...], segment: Segment) -> tuple[int, ...]:
    names = [name for name, _ in segment.axes]
    return tuple(names.index(name) for name in axes)


def _permuted(
    at: IntExpr, sizes: tuple[int, ...], places: tuple[int, ...]
) -> IntExpr | None:
    """The offset of a token of an array of `sizes` whose axes are visited by `places`.

    `places[0]` is the axis that is outermost in the order of the visit.
    """
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    visited = [math.prod(sizes[p] for p in places[i + 1 :]) for i in range(len(sizes))]
    terms: list[IntExpr] = []
    for nth, axis in enumerate(places):
        digit = _op(IntOp.FLOORDIV, at, Const(visited[nth]))
        if nth > 0:  # the outermost digit needs no remainder
            digit = _op(IntOp.MOD, digit, Const(sizes[axis]))
        terms.append(_op(IntOp.MUL, digit, Const(strides[axis])))
    return list(accumulate(terms, lambda a, b: _op(IntOp.ADD, a, b)))[-1]


def _boxes(at: IntExpr, sizes: tuple[int, ...], box: tuple[int, ...]) -> IntExpr | None:
    """Boxes one after another are an array of twice the axes with its axes permuted."""
    if any(size % side for size, side in zip(sizes, box, strict=True)):
        return None
    halves = tuple(
        part
        for size, side in zip(sizes, box, strict=True)
        for part in (size // side, side)
    )
    count = len(sizes)
    places = (*(2 * axis for axis in range(count)), *(2 * a + 1 for a in range(count)))
    return _permuted(at, halves, places)
