"""Interval arithmetic is sound: it never excludes a value that occurs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from patternc.analysis.interval import Bounds, Box, bounds_of, possible, python_bounds
from patternc.ir.evaluate import Point, evaluate, evaluate_int
from patternc.ir.nodes import KEY, QUERY, Axis, Binary, BoolExpr, Compare, Const, IntOp
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


def test_python_integers_do_not_overflow() -> None:
    box = Box({Axis.QUERY: python_bounds(0, 2**62), Axis.KEY: python_bounds(0, 2**62)})
    product = bounds_of(Binary(IntOp.MUL, QUERY, KEY), box)
    assert product.hi == 2**124
    assert bounds_of(Binary(IntOp.MUL, QUERY, Const(2**62)), box).hi == 2**124


def test_a_remainder_within_one_period_is_tight() -> None:
    box = Box({Axis.QUERY: python_bounds(65, 70)})
    found = bounds_of(Binary(IntOp.MOD, QUERY, Const(64)), box)
    assert (int(found.lo), int(found.hi)) == (1, 6)
