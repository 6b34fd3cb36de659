"""Interval arithmetic is sound: it never excludes a value that occurs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.analysis.interval import Bounds, Box, bounds_of, possible, python_bounds
from patternc.ir.evaluate import Ints, Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    KEY,
    QUERY,
    Abs,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    IntOp,
    Not,
)
from patternc.ir.text import print_expr
from patternc.ir.walk import subexpressions
from tests.strategies import masks

corner = st.integers(-60, 120)
side = st.integers(0, 40)


@given(masks(affine=False), corner, side, corner, side, st.integers(0, 5))
def test_nothing_possible_is_excluded(
    mask: BoolExpr, q0: int, q_side: int, k0: int, k_side: int, head: int
) -> None:
    q = np.arange(q0, q0 + q_side + 1, dtype=np.int64)[:, None]
    k = np.arange(k0, k0 + k_side + 1, dtype=np.int64)
    at = Point({Axis.QUERY: q, Axis.KEY: k, Axis.HEAD: head, Axis.LENGTH: 77})

    def bounds(low: int, high: int) -> Bounds:
        return Bounds(np.asarray(low), np.asarray(high))

    box = Box(
        {
            Axis.QUERY: bounds(q0, q0 + q_side),
            Axis.KEY: bounds(k0, k0 + k_side),
            Axis.HEAD: bounds(head, head),
            Axis.LENGTH: bounds(77, 77),
        }
    )
    seen, values = possible(mask, box), evaluate(mask, at)
    assert seen.true or not values.any()
    assert seen.false or values.all()
    for node in subexpressions(mask):
        if isinstance(node, Compare):
            for operand in (node.lhs, node.rhs):
                found, exact = bounds_of(operand, box), evaluate_int(operand, at)
                assert found.lo <= exact.min()
                assert exact.max() <= found.hi


@given(
    masks(affine=False),
    corner,
    st.integers(0, 9),
    st.integers(0, 12),
    corner,
    st.integers(0, 9),
    st.integers(0, 12),
)
def test_steps_are_sound(
    mask: BoolExpr, q0: int, dq: int, nq: int, k0: int, dk: int, nk: int
) -> None:
    """Queries and keys in arithmetic progressions; every step that is found holds."""
    q = q0 + dq * np.arange(nq + 1)[:, None]
    k = k0 + dk * np.arange(nk + 1)
    at = Point({Axis.QUERY: q, Axis.KEY: k, Axis.HEAD: 2, Axis.LENGTH: 77})

    def progression(values: Ints) -> Bounds:
        lo, hi = values.min(keepdims=True).ravel(), values.max(keepdims=True).ravel()
        return Bounds(lo, hi, np.gcd.reduce(values.ravel() - lo, keepdims=True))

    box = Box(
        {
            Axis.QUERY: progression(q),
            Axis.KEY: progression(k),
            Axis.HEAD: progression(np.asarray(2)),
            Axis.LENGTH: progression(np.asarray(77)),
        }
    )
    seen, values = possible(mask, box), evaluate(mask, at)
    assert seen.true or not values.any()
    assert seen.false or values.all()
    for node in subexpressions(mask):
        if isinstance(node, Compare):
            for operand in (node.lhs, node.rhs):
                found, exact = bounds_of(operand, box), evaluate_int(operand, at)
                assert found.lo <= exact.min()
                assert exact.max() <= found.hi
                assert found.step is not None
                step = int(np.broadcast_to(found.step, (1,))[0])
                apart = np.append(exact, found.hi) - found.lo
                assert not (apart % step if step else apart).any()


BACK = Binary(IntOp.SUB, QUERY, KEY)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (Binary(IntOp.MOD, BACK, Const(4)), (1, 1, 0)),  # one number
        (Binary(IntOp.MOD, BACK, Const(6)), (1, 5, 2)),
        (Binary(IntOp.MOD, BACK, Const(-4)), (-3, -3, 0)),
        (Binary(IntOp.FLOORDIV, KEY, Const(4)), (0, 25, 1)),
        (Binary(IntOp.FLOORDIV, KEY, Const(2)), (0, 50, 2)),
        (Binary(IntOp.MUL, KEY, Const(-3)), (-300, 0, 12)),
        (Abs(Binary(IntOp.SUB, KEY, Const(50))), (2, 50, 4)),
        (Binary(IntOp.MIN, KEY, Const(6)), (0, 6, 2)),
        (Binary(IntOp.MAX, KEY, Const(-6)), (0, 100, 4)),
    ],
    ids=lambda part: "" if isinstance(part, tuple) else print_expr(part),
)
def test_what_is_known_of_steps(
    expr: Binary | Abs, expected: tuple[int, int, int]
) -> None:
    """q in {1, 5, ..., 101}, k in {0, 4, ..., 100}."""

    def every_fourth(lo: int, hi: int) -> Bounds:
        return Bounds(np.asarray([lo]), np.asarray([hi]), np.asarray([4]))

    box = Box({Axis.QUERY: every_fourth(1, 101), Axis.KEY: every_fourth(0, 100)})
    found = bounds_of(expr, box)
    assert found.step is not None
    assert (int(found.lo[0]), int(found.hi[0]), int(found.step[0])) == expected


def test_numbers_of_different_residues_never_meet() -> None:
    even = Bounds(np.asarray([0]), np.asarray([100]), np.asarray([4]))
    odd = Bounds(np.asarray([3]), np.asarray([103]), np.asarray([2]))
    box = Box({Axis.QUERY: even, Axis.KEY: odd})
    assert not possible(Compare(CompareOp.EQ, QUERY, KEY), box).true
    assert not possible(Compare(CompareOp.NE, QUERY, KEY), box).false


def test_what_is_known_of_a_part_is_taken() -> None:
    box = Box({}, known={BACK: python_bounds(3, 5), LATE: python_bounds(1, 1)})
    assert int(bounds_of(Binary(IntOp.ADD, BACK, Const(1)), box).hi) == 6
    assert not possible(Not(LATE), box).true


LATE = Compare(CompareOp.GT, QUERY, Const(9))


def test_python_integers_do_not_overflow() -> None:
    box = Box({Axis.QUERY: python_bounds(0, 2**62), Axis.KEY: python_bounds(0, 2**62)})
    product = bounds_of(Binary(IntOp.MUL, QUERY, KEY), box)
    assert product.hi == 2**124
    assert bounds_of(Binary(IntOp.MUL, QUERY, Const(2**62)), box).hi == 2**124


def test_a_remainder_within_one_period_is_tight() -> None:
    box = Box({Axis.QUERY: python_bounds(65, 70)})
    found = bounds_of(Binary(IntOp.MOD, QUERY, Const(64)), box)
    assert (int(found.lo), int(found.hi)) == (1, 6)
