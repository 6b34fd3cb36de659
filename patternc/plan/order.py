"""The order in which tokens are visited.

In: the `order` cases of some heads, the layout, the sizes of a call. Out: the token at
each position. Not its job: which order is good (`passes.reorder`), tiles of positions
(`plan.expand`).

An order is a permutation of the tokens of its segment among themselves: segments stay
where they are. It is a part of the schedule: it changes speed, never a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np

from patternc.ir.evaluate import Ints, Tables
from patternc.ir.nodes import (
    AxesOrder,
    CurveOrder,
    LabelOrder,
    Layout,
    OrderCase,
    PhaseOrder,
    Segment,
    TileOrder,
)
from patternc.plan.curves import place_on_curve


def token_order(
    orders: Sequence[OrderCase],
    layout: Layout | None,
    n: int,
    tables: Tables | None = None,
    head: int = 0,
) -> Ints:
    """`tokens[position]`, int64 [n], a permutation of `range(n)`.

    `orders` are cases of different segments, all of them of `head`; `tables` holds
    the labels, [n] or by query head [h, n], of one batch element. Raises `ValueError`
    where the sizes or a table do not fit, naming what does not.
    """
    if layout is not None and layout.size != n:
        raise ValueError(
            f"the layout `{layout.name}` has {layout.size} tokens, not {n}"
        )
    tokens = np.arange(n, dtype=np.int64)
    ordered = np.zeros(n, dtype=np.bool_)
    for case in orders:
        segment = _segment_of(case, layout, n)
        part = slice(segment.start, segment.start + segment.size)
        if ordered[part].any():
            raise ValueError(f"two orders of the tokens of `{segment.name}`")
        ordered[part] = True
        tokens[part] = segment.start + _within(case, segment, n, tables or {}, head)
    return tokens


def _segment_of(case: OrderCase, layout: Layout | None, n: int) -> Segment:
    """The tokens that a case orders; the whole sequence has no axes."""
    if case.segment is None:
        return Segment("all", 0, n)
    for segment in layout.segments if layout is not None else ():
        if segment.name == case.segment:
            return segment
    raise ValueError(f"an order of the segment `{case.segment}`, which is not there")


def _within(
    case: OrderCase, segment: Segment, n: int, tables: Tables, head: int
) -> Ints:
    """The permutation of one segment's tokens, counted from its start."""
    order, count = case.order, np.arange(segment.size, dtype=np.int64)
    match order:
        case PhaseOrder():
            return np.argsort(count % order.stride, kind="stable")
        case LabelOrder():
            labels = _labels(order.table, tables, n, head)
            inside = labels[segment.start : segment.start + segment.size]
            return np.argsort(inside, kind="stable")
        case AxesOrder():
            at = dict(zip(_names(segment), _coordinates(segment), strict=True))
            _check_axes(order.axes, segment)
            return _sorted_by(*(at[name] for name in order.axes))
        case TileOrder():
            at_axis = _coordinates(segment)
            _check_sizes(order.sizes, segment)
            sizes = np.asarray(order.sizes, dtype=np.int64)[:, None]
            boxes, inside = at_axis // sizes, at_axis % sizes
            return _sorted_by(*boxes, *inside)
        case CurveOrder():
            at_axis = _coordinates(segment)
            bits = max(1, int(at_axis.max(initial=0)).bit_length())
            return np.argsort(place_on_curve(order.curve, at_axis, bits), kind="stable")
        case _:
            assert_never(order)


def _sorted_by(*keys: Ints) -> Ints:
    """The permutation that sorts by the first key, then by the next, and so on."""
    return np.asarray(np.lexsort(keys[::-1]), dtype=np.int64)


def _names(segment: Segment) -> tuple[str, ...]:
    return tuple(name for name, _ in segment.axes)


def _coordinates(segment: Segment) -> Ints:
    """The coordinates of a segment's tokens, [axes, size], outermost axis first."""
    if not segment.axes:
        raise ValueError(f"the segment `{segment.name}` has no axes to order by")
    shape = tuple(size for _, size in segment.axes)
    return np.indices(shape, dtype=np.int64).reshape(len(shape), -1)


def _check_axes(axes: tuple[str, ...], segment: Segment) -> None:
    if sorted(axes) != sorted(_names(segment)):
        known = ", ".join(_names(segment))
        raise ValueError(
            f"`{segment.name}` has the axes {known}, each to be named once"
        )


def _check_sizes(sizes: tuple[int, ...], segment: Segment) -> None:
    if len(sizes) != len(segment.axes) or min(sizes) < 1:
        count = len(segment.axes)
        raise ValueError(f"a box in `{segment.name}` has {count} sizes of at least 1")


def _labels(name: str, tables: Tables, n: int, head: int) -> Ints:
    """The labels of one head, [n]."""
    if name not in tables:
        raise ValueError(f"the order reads the input `{name}`, which is not given")
    table = np.asarray(tables[name])
    if table.dtype.kind not in "iub" or table.ndim not in (1, 2):
        raise ValueError(f"`{name}` must be integers of one or two axes to order by")
    if table.shape[-1] != n or (table.ndim == 2 and head >= table.shape[0]):
        shape = " x ".join(str(size) for size in table.shape)
        raise ValueError(f"`{name}` has {shape} labels; head {head} has {n} tokens")
    return np.asarray(table if table.ndim == 1 else table[head], dtype=np.int64)
