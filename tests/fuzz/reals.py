"""Decimal numbers as text beside what they mean: the second half of `terms`.

In: parts that are already made. Out: `Real`s, for scores, sinks and outputs. Not its
job: choosing what to make (`tests.fuzz.expressions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from tests.fuzz.terms import (
    Floats,
    Level,
    Number,
    Pairs,
    Place,
    Real,
    element,
    within,
)


def decimal(value: float) -> Real:
    """A literal with a decimal point, rounded to three places."""
    text = f"{abs(value):.3f}"
    if value < 0:
        return Real(f"-{text}", lambda _: np.asarray(-float(text)), Level.SIGNED)
    return Real(text, lambda _: np.asarray(float(text)))


def whole(number: Number) -> Real:
    """An integer expression; 0 where it is not known."""

    def at(place: Place) -> Floats:
        value = number.at(place)
        return np.where(value.known, value.value, 0).astype(np.float64)

    return Real(number.text, at, number.level, is_whole=True)


def given(name: str) -> Real:
    """`s`, `o` or `v`."""
    return Real(name, lambda place: place.given[name])


def real_element(name: str, indices: Sequence[Number]) -> Real:
    """An element of an input of decimal numbers, which is 0 outside."""
    text = element(name, indices).text

    def at(place: Place) -> Floats:
        table = place.tables[name]
        found = [index.at(place) for index in indices]
        exists = np.asarray(True)
        for index, size in zip(found, table.shape, strict=True):
            exists = exists & index.known & (index.value >= 0) & (index.value < size)
        if table.size == 0:
            return np.zeros(np.shape(exists))
        places = [np.where(exists, index.value, 0) for index in found]
        return np.where(exists, table[tuple(places)], 0.0)

    return Real(text, at)


_ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}


def arithmetic(sign: str, lhs: Real, rhs: Real) -> Real:
    """`lhs sign rhs`; two integers must be divided, or they would be an integer."""
    if lhs.is_whole and rhs.is_whole and sign != "/":
        raise ValueError(f"this is an integer: {lhs.text} {sign} {rhs.text}")
    level = Level.SUM if sign in "+-" else Level.PRODUCT
    text = f"{within(lhs, level)} {sign} {within(rhs, Level(level + 1))}"
    function = _ARITHMETIC[sign]
    return Real(text, lambda place: function(lhs.at(place), rhs.at(place)), level)


def negative(operand: Real) -> Real:
    """`-operand`."""
    text = f"-{within(operand, Level.SIGNED)}"
    return Real(text, lambda place: -operand.at(place), Level.SIGNED)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


_FUNCTIONS: dict[str, Callable[..., Floats]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0.0),
    "abs": np.abs,
    "softcap": lambda x, c: c * np.tanh(x / c),
    "min": lambda *x: reduce(np.minimum, x),
    "max": lambda *x: reduce(np.maximum, x),
    "clamp": lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi),
}


def call(name: str, parts: Sequence[Real]) -> Real:
    """A function of decimal numbers, one of which is no integer."""
    text = f"{name}({', '.join(part.text for part in parts)})"
    function = _FUNCTIONS[name]
    return Real(text, lambda place: function(*(part.at(place) for part in parts)))


def where(condition: Pairs, then: Real, otherwise: Real) -> Real:
    """`where(p, x, y)`."""
    text = f"where({condition.text}, {then.text}, {otherwise.text})"

    def at(place: Place) -> Floats:
        return np.where(condition.at(place), then.at(place), otherwise.at(place))

    return Real(text, at)
