"""Expressions as text beside what they mean, written a second time.

In: parts that are already made. Out: `Number`, `Pairs` and `Real`: the text of an
integer, a pattern or a decimal number of a `.pat` program, and a function from a place
to its value in NumPy, after docs/language.md. Nothing here is shared with the compiler:
that is the point. Not its job: choosing what to make (`tests.fuzz.expressions`).

A value that reads an input or a coordinate that there is not is not known, and the
innermost comparison that reads it is false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Level(IntEnum):
    """How tightly an expression binds, as in the table of docs/language.md."""

    UNION = 0
    INTERSECTION = 1
    COMPLEMENT = 2
    COMPARISON = 3
    SUM = 4
    PRODUCT = 5
    SIGNED = 6
    POSTFIX = 7


@dataclass(frozen=True, slots=True)
class Value:
    """Integers and where they are known; both broadcast."""

    value: Ints
    known: Bools


def known(value: int | Ints) -> Value:
    """A value that is known everywhere."""
    return Value(np.asarray(value, dtype=np.int64), np.asarray(True))


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression is looked at.

    `names` are the indices `q k h g N layer step` and parameters; `tables` the inputs
    of one batch element, without a batch axis; `given` is `s`, or `o` and `v`.
    """

    names: Mapping[str, Value]
    tables: Mapping[str, NDArray[np.generic]]
    given: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer."""

    text: str
    at: Callable[[Place], Value]
    level: Level = Level.POSTFIX


@dataclass(frozen=True, slots=True)
class Pairs:
    """A pattern: the pairs for which it holds."""

    text: str
    at: Callable[[Place], Bools]
    level: Level = Level.POSTFIX


@dataclass(frozen=True, slots=True)
class Real:
    """A decimal number. `is_whole`: the text is that of an integer."""

    text: str
    at: Callable[[Place], Floats]
    level: Level = Level.POSTFIX
    is_whole: bool = False


def within(part: Number | Pairs | Real, level: Level) -> str:
    """The text where only what binds as tightly as `level` may stand."""
    return part.text if part.level >= level else f"({part.text})"


# --- integers


def constant(value: int) -> Number:
    """A literal."""
    level = Level.POSTFIX if value >= 0 else Level.SIGNED
    return Number(str(value), lambda _: known(value), level)


def named(name: str) -> Number:
    """An index or a parameter."""
    return Number(name, lambda place: place.names[name])


_ARITHMETIC: dict[str, Callable[[Ints, Ints], Ints]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}


def arithmetic(sign: str, lhs: Number, rhs: Number) -> Number:
    """`lhs sign rhs`; the divisor of `//` and `%` is never 0."""
    level = Level.SUM if sign in "+-" else Level.PRODUCT
    right = Level(level + 1)
    text = f"{within(lhs, level)} {sign} {within(rhs, right)}"
    return Number(text, _strict(_ARITHMETIC[sign], lhs, rhs), level)


def negative(operand: Number) -> Number:
    """`-operand`."""
    at = _strict(lambda x: -x, operand)
    return Number(f"-{within(operand, Level.SIGNED)}", at, Level.SIGNED)


def _bit_length(x: Ints) -> Ints:
    bits = np.vectorize(lambda one: max(int(one), 0).bit_length(), otypes=[np.int64])
    return np.asarray(bits(x))


_FUNCTIONS: dict[str, Callable[..., Ints]] = {
    "abs": np.abs,
    "min": lambda *x: reduce(np.minimum, x),
    "max": lambda *x: reduce(np.maximum, x),
    "clamp": lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi),
    "bitlen": _bit_length,
}


def built_in(name: str, parts: Sequence[Number]) -> Number:
    """`abs(x)`, `min(x, y, ...)`, `max(...)`, `clamp(x, lo, hi)`, `bitlen(x)`."""
    text = f"{name}({', '.join(part.text for part in parts)})"
    return Number(text, _strict(_FUNCTIONS[name], *parts))


def coordinate(token: str, axis: str, start: int, sizes: Mapping[str, int]) -> Number:
    """`q.x`: the axis of a segment that starts at `start`, all its axes in `sizes`."""
    names = list(sizes)
    place = names.index(axis)
    stride = int(np.prod([sizes[name] for name in names[place + 1 :]], dtype=np.int64))
    total = int(np.prod(list(sizes.values()), dtype=np.int64))

    def at(place_: Place) -> Value:
        where = place_.names[token]
        inside = where.value - start
        exists = where.known & (inside >= 0) & (inside < total)
        return Value(inside // stride % sizes[axis], exists)

    return Number(f"{token}.{axis}", at)


def element(name: str, indices: Sequence[Number]) -> Number:
    """An element of an integer input; not known outside of it."""
    return Number(_element_text(name, indices), _element_at(name, indices))


def _element_text(name: str, indices: Sequence[Number]) -> str:
    return f"{name}[{', '.join(i.text for i in indices)}]" if indices else name


def _element_at(name: str, indices: Sequence[Number]) -> Callable[[Place], Value]:
    def at(place: Place) -> Value:
        table = place.tables[name]
        found = [index.at(place) for index in indices]
        exists = np.asarray(True)
        for index, size in zip(found, table.shape, strict=True):
            exists = exists & index.known & (index.value >= 0) & (index.value < size)
        if table.size == 0:
            return Value(np.asarray(0), exists & False)
        places = [np.where(exists, index.value, 0) for index in found]
        return Value(np.asarray(table[tuple(places)]).astype(np.int64), exists)

    return at


def _strict(function: Callable[..., Ints], *parts: Number) -> Callable[[Place], Value]:
    """A function that is known where all its operands are."""

    def at(place: Place) -> Value:
        values = [part.at(place) for part in parts]
        exists = reduce(operator.and_, (value.known for value in values))
        return Value(np.asarray(function(*(x.value for x in values))), exists)

    return at


# --- patterns

_COMPARISONS: dict[str, Callable[[Ints, Ints], Bools]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def _compared(sign: str, lhs: Value, rhs: Value) -> Bools:
    found = _COMPARISONS[sign](lhs.value, rhs.value)
    return np.asarray(found & lhs.known & rhs.known)


def truth(value: bool) -> Pairs:
    """`full` or `empty`."""
    return Pairs("full" if value else "empty", lambda _: np.asarray(value))


def chain(first: Number, links: Sequence[tuple[str, Number]]) -> Pairs:
    """`a < b <= c`."""
    text = within(first, Level.SUM)
    for sign, operand in links:
        text += f" {sign} {within(operand, Level.SUM)}"

    def at(place: Place) -> Bools:
        lhs, seen = first.at(place), np.asarray(True)
        for sign, operand in links:
            rhs = operand.at(place)
            seen = seen & _compared(sign, lhs, rhs)
            lhs = rhs
        return np.asarray(seen)

    return Pairs(text, at, Level.COMPARISON)


def in_set(item: Number, members: Sequence[Number]) -> Pairs:
    """`item in {a, b}`."""
    text = f"{within(item, Level.SUM)} in {{{', '.join(x.text for x in members)}}}"

    def at(place: Place) -> Bools:
        own = item.at(place)
        every = [_compared("==", own, member.at(place)) for member in members]
        return np.asarray(reduce(operator.or_, every))

    return Pairs(text, at, Level.COMPARISON)


def in_range(item: Number, start: Number, end: Number) -> Pairs:
    """`item in range(start, end)`, half-open."""
    text = f"{within(item, Level.SUM)} in range({start.text}, {end.text})"

    def at(place: Place) -> Bools:
        own = item.at(place)
        above = _compared("<=", start.at(place), own)
        return np.asarray(above & _compared("<", own, end.at(place)))

    return Pairs(text, at, Level.COMPARISON)


def in_segment(item: Number, name: str, start: int, size: int) -> Pairs:
    """`item in text`."""

    def at(place: Place) -> Bools:
        own = item.at(place)
        inside = (own.value >= start) & (own.value < start + size)
        return np.asarray(own.known & inside)

    return Pairs(f"{within(item, Level.SUM)} in {name}", at, Level.COMPARISON)


def truth_element(name: str, indices: Sequence[Number]) -> Pairs:
    """An element of an input of truth values, which is false outside."""
    read = _element_at(name, indices)

    def at(place: Place) -> Bools:
        value = read(place)
        return np.asarray((value.value != 0) & value.known)

    return Pairs(_element_text(name, indices), at)


def union(parts: Sequence[Pairs]) -> Pairs:
    """`a | b`."""
    text = " | ".join(within(part, Level.INTERSECTION) for part in parts)
    return Pairs(text, _folded(operator.or_, parts), Level.UNION)


def intersection(parts: Sequence[Pairs]) -> Pairs:
    """`a & b`."""
    text = " & ".join(within(part, Level.COMPLEMENT) for part in parts)
    return Pairs(text, _folded(operator.and_, parts), Level.INTERSECTION)


def _folded(
    join: Callable[[Bools, Bools], Bools], parts: Sequence[Pairs]
) -> Callable[[Place], Bools]:
    return lambda place: np.asarray(reduce(join, (part.at(place) for part in parts)))


def complement(part: Pairs) -> Pairs:
    """`~a`."""
    text = f"~{within(part, Level.COMPLEMENT)}"
    return Pairs(text, lambda place: np.asarray(~part.at(place)), Level.COMPLEMENT)


def moved(part: Pairs, query: Number, key: Number) -> Pairs:
    """`part[query, key]`: both are evaluated here, then stand for `q` and `k`."""

    def at(place: Place) -> Bools:
        there = {"q": query.at(place), "k": key.at(place)}
        return part.at(Place({**place.names, **there}, place.tables, place.given))

    return Pairs(f"{within(part, Level.POSTFIX)}[{query.text}, {key.text}]", at)


INDICES = ("q", "k", "h", "g", "N")
"""What the body of a pattern or function sees beside its own parameters."""


def inside_body(
    place: Place, parameters: Sequence[str], arguments: Sequence[Number]
) -> Place:
    """The place where the body of a declaration is evaluated."""
    names = {name: place.names[name] for name in INDICES if name in place.names}
    values = [argument.at(place) for argument in arguments]
    names |= dict(zip(parameters, values, strict=True))
    return Place(names, {})
