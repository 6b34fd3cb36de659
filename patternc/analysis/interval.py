"""Interval arithmetic over IR expressions.

In: an expression and, for every axis and run-time parameter, the least and the
greatest value and, where it is known, a step (scalars, or arrays for many boxes at
once). Out: bounds of an integer, or for a truth value whether it may be true and
whether it may be false. Sound, not tight: a value may be called possible that never
occurs, never the other way. Not its job: exact tile relations (`analysis.sets`).

Steps are what makes congruences decidable: with all queries equal modulo 4, and all
keys too, `(q - k) % 4` is one number (Granger, "Static analysis of arithmetical
congruences", 1989).

The arithmetic is NumPy's: int64 arrays for tiles; arrays of `object` dtype hold
Python integers and never overflow (`python_bounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any as Anything
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Expr,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)

Array = NDArray[Anything]


@dataclass(frozen=True, slots=True)
class Bounds:
    """`lo <= value <= hi`, both ends possible or over-approximated.

    With a `step` every value, and `hi`, is `lo` plus a multiple of it, and a step of 0
    says that there is one value. None says that nothing is known of steps.
    """

    lo: Array
    hi: Array
    step: Array | None = None


@dataclass(frozen=True, slots=True)
class Possible:
    """Whether a truth value may be true, and whether it may be false."""

    true: Array
    false: Array


@dataclass(frozen=True)
class Box:
    """The bounds of every axis, run-time parameter and input."""

    axes: Mapping[Axis, Bounds]
    params: Mapping[str, Bounds] = field(default_factory=dict)
    read: Callable[[Read, tuple[Bounds, ...]], Bounds] | None = None
    """Bounds of an input over bounds of its indices; None where none is read."""
    known: Mapping[Expr, Bounds] = field(default_factory=dict)
    """Bounds of whole subexpressions, found by equality; a truth value is 0 or 1."""


def python_bounds(lo: int, hi: int) -> Bounds:
    """Bounds that hold Python integers, so that nothing can overflow."""
    return Bounds(np.asarray(lo, dtype=object), np.asarray(hi, dtype=object))


def bounds_of(expr: IntExpr, box: Box) -> Bounds:
    """Bounds of an integer expression. A divisor must not contain 0 in its bounds."""
    if box.known and (found := box.known.get(expr)) is not None:
        return found
    match expr:
        case Const():
            value = np.asarray(expr.value, dtype=object)
            if -(2**63) <= expr.value < 2**63 and not _is_python(box):
                value = np.asarray(expr.value, dtype=np.int64)
            return Bounds(value, value, value - value)
        case Index():
            return box.axes[expr.axis]
        case Param():
            return box.params[expr.name]
        case Abs():
            return _absolute(bounds_of(expr.operand, box))
        case Read():
            if box.read is None:
                raise LookupError(f"no bounds are known of the input `{expr.table}`")
            return box.read(expr, tuple(bounds_of(at, box) for at in expr.indices))
        case Binary():
            return _binary(expr.op, bounds_of(expr.lhs, box), bounds_of(expr.rhs, box))
        case _:
            assert_never(expr)


def possible(expr: BoolExpr, box: Box) -> Possible:
    """Whether `expr` may be true, and may be false, somewhere in the box."""
    if box.known and (found := box.known.get(expr)) is not None:
        return Possible(np.asarray(found.hi > 0), np.asarray(found.lo < 1))
    match expr:
        case Truth():
            value = np.asarray(expr.value)
            return Possible(value, ~value)
        case Compare():
            return _compare(expr.op, bounds_of(expr.lhs, box), bounds_of(expr.rhs, box))
        case Not():
            inner = possible(expr.term, box)
            return Possible(inner.false, inner.true)
        case All() | Any():
            true = np.asarray(isinstance(expr, All))
            false = ~true
            for term in expr.terms:
                part = possible(term, box)
                if isinstance(expr, All):
                    true, false = true & part.true, false | part.false
                else:
                    true, false = true | part.true, false & part.false
            return Possible(true, false)
        case _:
            assert_never(expr)


def _is_python(box: Box) -> bool:
    """Whether the box holds Python integers rather than int64 arrays."""
    return any(bounds.lo.dtype == object for bounds in box.axes.values())


def _binary(op: IntOp, a: Bounds, b: Bounds) -> Bounds:
    match op:
        case IntOp.ADD:
            return Bounds(a.lo + b.lo, a.hi + b.hi, _common(a.step, b.step))
        case IntOp.SUB:
            return Bounds(a.lo - b.hi, a.hi - b.lo, _common(a.step, b.step))
        case IntOp.MIN:
            step = _chosen_step(a, b, a.hi <= b.lo, b.hi <= a.lo)
            return Bounds(_least(a.lo, b.lo), _least(a.hi, b.hi), step)
        case IntOp.MAX:
            step = _chosen_step(a, b, a.lo >= b.hi, b.lo >= a.hi)
            return Bounds(_greatest(a.lo, b.lo), _greatest(a.hi, b.hi), step)
        case IntOp.MUL:
            corners = _hull(a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi)
            return replace(corners, step=_product_step(a, b))
        case IntOp.FLOORDIV:
            corners = _hull(a.lo // b.lo, a.lo // b.hi, a.hi // b.lo, a.hi // b.hi)
            return replace(corners, step=_quotient_step(a, b))
        case IntOp.MOD:
            return _modulo(a, b)
        case _:
            assert_never(op)


def _common(*steps: Array | None) -> Array | None:
    """The greatest common divisor; None if one is not known."""
    found: Array = np.asarray(0)
    for step in steps:
        if step is None:
            return None
        found = np.asarray(np.gcd(found, _boxed(step)))
    return found


def _chosen_step(a: Bounds, b: Bounds, is_a: Array, is_b: Array) -> Array | None:
    """The step of a value that is `a` or `b`; `is_a` and `is_b` say where it is sure."""
    either = _common(a.step, b.step, abs(a.lo - b.lo))
    if either is None or a.step is None or b.step is None:
        return None
    return np.where(is_a, a.step, np.where(is_b, b.step, either))


def _product_step(a: Bounds, b: Bounds) -> Array | None:
    """Known where one factor is constant."""
    if a.step is None or b.step is None:
        return None
    found = np.where(b.step == 0, a.step * abs(b.lo), 1)
    return np.where(a.step == 0, b.step * abs(a.lo), found)


def _quotient_step(a: Bounds, b: Bounds) -> Array | None:
    """Known where a constant divisor divides the step; else the floors may jump by 1."""
    if a.step is None or b.step is None:
        return None
    is_exact = (b.step == 0) & (a.step % b.lo == 0)
    # A dividend and a divisor that are constants have a step of 0 here too.
    return np.where(is_exact, abs(a.step // b.lo), 1)


def _absolute(inner: Bounds) -> Bounds:
    straddles = (inner.lo < 0) & (inner.hi > 0)
    low, high = abs(inner.lo), abs(inner.hi)
    if inner.step is None:
        least = np.where(straddles, 0, _least(low, high))
        return Bounds(least, _greatest(low, high))
    # Both signs occur: values are congruent modulo the step and twice the end.
    both = np.asarray(np.gcd(_boxed(inner.step), _boxed(2 * low)))
    step = np.where(straddles, both, inner.step)
    least = np.where(straddles, low % np.where(both == 0, 1, both), _least(low, high))
    return Bounds(least, _greatest(low, high), step)


def _hull(*corners: Array) -> Bounds:
    lo = hi = corners[0]
    for corner in corners[1:]:
        lo, hi = _least(lo, corner), _greatest(hi, corner)
    return Bounds(lo, hi)


def _least(a: Array, b: Array) -> Array:
    return np.asarray(np.minimum(_boxed(a), _boxed(b)))


def _greatest(a: Array, b: Array) -> Array:
    return np.asarray(np.maximum(_boxed(a), _boxed(b)))


def _boxed(value: Array | int) -> Array:
    """Arithmetic on one Python integer gives a bare `int`, which ufuncs would narrow."""
    return np.asarray(value, dtype=object) if isinstance(value, int) else value


def _modulo(a: Bounds, b: Bounds) -> Bounds:
    """Python's `%`: the result has the divisor's sign."""
    positive = b.lo > 0
    lo = np.where(positive, 0, b.lo + 1)
    hi = np.where(positive, b.hi - 1, 0)
    step: Array | None = None
    is_one = b.lo == b.hi
    if a.step is not None and b.step is not None:
        # The remainder by a constant keeps what the step and the constant share.
        step = np.where(is_one, np.gcd(_boxed(a.step), _boxed(abs(b.lo))), 1)
        rest = a.lo % step
        lo = np.where(is_one, lo + (rest - lo) % step, lo)
        hi = np.where(is_one, hi - (hi - rest) % step, hi)
    one_period = is_one & (a.lo // b.lo == a.hi // b.lo)
    lo = np.where(one_period, a.lo % b.lo, lo)
    hi = np.where(one_period, a.hi % b.lo, hi)
    inside = positive & (a.lo >= 0) & ~one_period  # then the result is also at most a
    if step is None or a.step is None:
        return Bounds(lo, np.where(inside, _least(hi, a.hi), hi))
    # Where the divisor varies, the ends are not known to be multiples of a step.
    hi = np.where(inside, _least(hi, a.hi), hi)
    return Bounds(lo, hi, np.where(one_period, a.step, np.where(lo == hi, 0, step)))


def _compare(op: CompareOp, a: Bounds, b: Bounds) -> Possible:
    def bools(value: Array) -> Array:
        return np.asarray(value, dtype=np.bool_)

    match op:
        case CompareOp.LT:
            return Possible(bools(a.lo < b.hi), bools(a.hi >= b.lo))
        case CompareOp.LE:
            return Possible(bools(a.lo <= b.hi), bools(a.hi > b.lo))
        case CompareOp.GT:
            return Possible(bools(a.hi > b.lo), bools(a.lo <= b.hi))
        case CompareOp.GE:
            return Possible(bools(a.hi >= b.lo), bools(a.lo < b.hi))
        case CompareOp.EQ | CompareOp.NE:
            meet = bools((a.lo <= b.hi) & (b.lo <= a.hi))
            same = bools((a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo))
            shared = _common(a.step, b.step)
            if shared is not None:  # numbers of different residues never meet
                residue = (a.lo - b.lo) % np.where(shared == 0, 1, shared)
                meet = bools(meet & (residue == 0))
            equal = Possible(meet, ~same)
            if op is CompareOp.EQ:
                return equal
            return Possible(equal.false, equal.true)
        case _:
            assert_never(op)
