"""Random integers, patterns and decimal numbers of the language.

In: a seeded generator and a `Scope` (`tests.fuzz.scope`): what may be named. Out:
`terms`. Not its job: whole programs (`tests.fuzz.programs`). Constants have the size of
the lengths of the calls, so that few masks are full or empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from tests.fuzz import reals
from tests.fuzz.scope import (
    STANDARD,
    Axis,
    Declared,
    InputShape,
    Scope,
    Segment,
    called_number,
    called_pairs,
)
from tests.fuzz.terms import (
    Number,
    Pairs,
    Real,
    arithmetic,
    built_in,
    chain,
    complement,
    constant,
    coordinate,
    element,
    in_range,
    in_segment,
    in_set,
    intersection,
    moved,
    named,
    negative,
    truth,
    truth_element,
    union,
)


@dataclass(frozen=True, slots=True)
class Drawer:
    """Draws expressions in one scope."""

    rng: Random
    scope: Scope

    # --- integers

    def small(self) -> Number:
        """A literal of the size of a length."""
        far = self.rng.random() < 0.35
        return constant(self.rng.randint(-20, 45) if far else self.rng.randint(-8, 8))

    def positive(self) -> Number:
        """A literal that may divide or be a width."""
        return constant(self.rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24)))

    def leaf(self) -> Number:
        """What has no operands."""
        rng, scope = self.rng, self.scope
        makers: list[tuple[float, Callable[[], Number]]] = [(2, self.small)]
        tokens = [name for name in scope.indices if name in "qk"]
        others = [name for name in scope.indices if name not in "qk"]
        if tokens:
            makers.append((5, lambda: named(rng.choice(tokens))))
        if others:
            makers.append((1.5, lambda: named(rng.choice(others))))
        if scope.parameters:
            makers.append((1.5, lambda: named(rng.choice(scope.parameters))))
        if tokens and self._axes():
            makers.append((4, self._coordinate))
        if self._readable("int"):
            makers.append((4, self._read_number))
        weights = [weight for weight, _ in makers]
        return rng.choices([maker for _, maker in makers], weights)[0]()

    def number(self, depth: int) -> Number:
        """An integer of at most `depth` operations on top of each other."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.3:
            return self.leaf()
        less = depth - 1
        match rng.choices(range(8), (6, 2, 3, 2, 2, 1, 0.5, 1))[0]:
            case 0:
                sign = rng.choice("+-")
                return arithmetic(sign, self.number(less), self.number(less))
            case 1:
                return arithmetic("*", constant(rng.randint(-4, 4)), self.number(less))
            case 2:
                sign = rng.choice(("//", "%"))
                return arithmetic(sign, self.number(less), self._divisor())
            case 3:
                return built_in("abs", [self.number(less)])
            case 4:
                count = rng.randint(2, 3)
                parts = [self.number(less) for _ in range(count)]
                names = ("min", "max") if count == 2 else ("min", "max", "clamp")
                return built_in(rng.choice(names), parts)
            case 5:
                return negative(self.number(less))
            case 6:
                return arithmetic("*", self.leaf(), self.leaf())
            case _:
                if self.scope.functions and rng.random() < 0.8:
                    declared = rng.choice(self.scope.functions)
                    return called_number(declared, self._arguments(declared))
                return built_in("bitlen", [self.leaf()])

    def _divisor(self) -> Number:
        pick = self.rng.random()
        if pick < 0.75:
            return self.positive()
        if pick < 0.87:
            return constant(-self.rng.randint(1, 9))
        return built_in("max", [self.leaf(), constant(1)])

    def _axes(self) -> list[tuple[Segment, str]]:
        return [(one, axis) for one in self.scope.segments for axis in one.axes]

    def _coordinate(self) -> Number:
        segment, axis = self.rng.choice(self._axes())
        token = self.rng.choice([x for x in self.scope.indices if x in "qk"])
        return coordinate(token, axis, segment.start, segment.axes)

    def _readable(self, kind: str) -> list[InputShape]:
        seen = set(self.scope.indices)
        return [
            item
            for item in self.scope.inputs
            if item.element == kind
            and not any(
                axis.kind == "q" and (self.scope.is_moved or "q" not in seen)
                for axis in item.axes
            )
        ]

    def _read_number(self) -> Number:
        item = self.rng.choice(self._readable("int"))
        return element(item.name, self._places(item))

    def _places(self, item: InputShape) -> list[Number]:
        return [self._index(axis) for axis in item.axes if axis.kind != "b"]

    def _index(self, axis: Axis) -> Number:
        """An index along an axis: what it counts, or now and then anything."""
        rng = self.rng
        bare = Drawer(rng, replace(self.scope, inputs=()))
        if axis.kind == "q":
            return axis.position()
        if axis.kind == "k" and rng.random() < 0.7:
            token = rng.choice([x for x in self.scope.indices if x in "qk"] or ["N"])
            if token in self.scope.indices:
                return replace(axis, kind=token).position()
        if axis.kind in "hg" and axis.kind in self.scope.indices and rng.random() < 0.8:
            return named(axis.kind)
        if axis.kind == "size" and rng.random() < 0.5:
            return arithmetic("%", bare.number(1), constant(axis.size))
        return bare.number(1)

    def _arguments(self, declared: Declared) -> list[Number]:
        count = len(declared.parameters)
        if count and declared.default is not None and self.rng.random() < 0.3:
            count -= 1
        simple = self.rng.random() < 0.6
        return [self.positive() if simple else self.number(1) for _ in range(count)]

    # --- patterns

    def pairs(self, depth: int) -> Pairs:
        """A pattern of at most `depth` operations on top of each other."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.2:
            return self.simple_pairs()
        less = depth - 1
        pick = rng.random()
        if pick < 0.40:
            parts = [self.pairs(less) for _ in range(rng.randint(2, 3))]
            return intersection(parts)
        if pick < 0.72:
            return union([self.pairs(less) for _ in range(rng.randint(2, 3))])
        if pick < 0.84:
            return complement(self.pairs(less))
        if not {"q", "k"} <= set(self.scope.indices):
            return self.simple_pairs()
        inner = Drawer(rng, replace(self.scope, is_moved=True)).pairs(less)
        if inner.text in {item.name for item in self.scope.inputs}:
            return inner  # brackets behind an input are its indices
        return moved(inner, self._moved("q"), self._moved("k"))

    def _moved(self, token: str) -> Number:
        rng, own = self.rng, named(token)
        match rng.choices(range(5), (3, 2, 2, 1, 1))[0]:
            case 0:
                return arithmetic("//", own, self.positive())
            case 1:
                return own
            case 2:
                return arithmetic(rng.choice("+-"), own, self.positive())
            case 3:
                return named("k" if token == "q" else "q")
            case _:
                return self.number(1)

    def simple_pairs(self) -> Pairs:
        """A standard shape, a comparison, a set, a range, a segment or an input."""
        rng, scope = self.rng, self.scope
        has_tokens = "q" in scope.indices and "k" in scope.indices
        if has_tokens and rng.random() < 0.4:
            return self._known_shape()
        if self._readable("bool") and rng.random() < 0.35:
            item = rng.choice(self._readable("bool"))
            return truth_element(item.name, self._places(item))
        if scope.segments and rng.random() < 0.25 and has_tokens:
            segment = rng.choice(scope.segments)
            token = named(rng.choice("qk")) if rng.random() < 0.8 else self.number(1)
            return in_segment(token, segment.name, segment.start, segment.size)
        pick = rng.random()
        if pick < 0.08:
            members = [self.number(1) for _ in range(rng.randint(1, 3))]
            return in_set(self.number(1), members)
        if pick < 0.16:
            return in_range(self.number(1), self.number(1), self.number(1))
        if pick < 0.19:
            return truth(rng.random() < 0.5)
        if pick < 0.30:
            return chain(self.number(1), [self._link(1), self._link(1)])
        return chain(self.number(2), [self._link(2)])

    def _link(self, depth: int) -> tuple[str, Number]:
        sign = self.rng.choice(("<", "<=", ">", ">=", "<", "<=", "==", "==", "!="))
        return sign, self.number(depth)

    def _known_shape(self) -> Pairs:
        rng = self.rng
        q, k = named("q"), named("k")
        if self.scope.patterns and rng.random() < 0.3:
            declared = rng.choice(self.scope.patterns)
            return called_pairs(declared, self._arguments(declared))
        if rng.random() < 0.6:
            declared = rng.choice(STANDARD)
            return called_pairs(declared, self._arguments(declared))
        back = arithmetic("-", q, k)
        by, residue = rng.randint(2, 7), rng.randint(0, 2)
        shifted = arithmetic("+", k, self.leaf())
        match rng.randrange(4):
            case 0:
                what = arithmetic("%", back, constant(by))
                return chain(what, [("==", constant(residue))])
            case 1:
                what = arithmetic("%", shifted, constant(by))
                return chain(what, [("==", constant(residue))])
            case 2:
                sides = [arithmetic("//", x, constant(by)) for x in (q, k)]
                return chain(sides[0], [("==", sides[1])])
            case _:
                sides = [arithmetic("%", x, constant(by)) for x in (q, k)]
                return chain(sides[0], [("==", sides[1])])

    # --- decimal numbers

    def real(self, depth: int, given: Sequence[str]) -> Real:
        """A number whose functions stay where their derivatives are moderate."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.25:
            return self._real_leaf(given)
        lhs = self.real(depth - 1, given)
        match rng.randrange(9):
            case 0:
                rhs = self.real(depth - 1, given)
                return self._joined(rng.choice("+-*"), lhs, rhs)
            case 1:
                return self._joined("+", lhs, self.real(depth - 1, given))
            case 2:
                return reals.negative(lhs) if not lhs.is_whole else _small(lhs)
            case 3:
                rhs = _decimal(self.real(depth - 1, given))
                return reals.call(rng.choice(("min", "max")), [_decimal(lhs), rhs])
            case 4:
                cap = reals.decimal(rng.uniform(0.5, 9))
                return reals.call("softcap", [lhs, cap])
            case 5:
                name = rng.choice(("tanh", "sigmoid", "relu", "abs"))
                return reals.call(name, [_decimal(lhs)])
            case 6:
                bent = reals.call("tanh", [lhs])
                return reals.call("exp", [bent])
            case 7:
                return reals.call(rng.choice(("log", "sqrt")), [_above_one(lhs)])
            case _:
                if rng.random() < 0.5:
                    rhs = self.real(depth - 1, given)
                    return reals.where(self.pairs(1), lhs, rhs)
                return reals.arithmetic(
                    "/", lhs, _above_one(self.real(depth - 1, given))
                )

    def _joined(self, sign: str, lhs: Real, rhs: Real) -> Real:
        both = lhs.is_whole and rhs.is_whole
        return reals.arithmetic(sign, _small(lhs) if both else lhs, rhs)

    def _real_leaf(self, given: Sequence[str]) -> Real:
        rng = self.rng
        makers: list[Callable[[], Real]] = [
            lambda: reals.decimal(rng.uniform(-2, 2)),
            lambda: _small(reals.whole(self.number(1))),
        ]
        if given:
            makers += [lambda: reals.given(rng.choice(given))] * 2
        if self._readable("float"):
            makers += [self._read_real] * 2
        if self.scope.decimals:
            makers.append(self._decimal_parameter)
        if rng.random() < 0.1:
            return reals.whole(self.number(1))
        return rng.choice(makers)()

    def _read_real(self) -> Real:
        item = self.rng.choice(self._readable("float"))
        return reals.real_element(item.name, self._places(item))

    def _decimal_parameter(self) -> Real:
        name = self.rng.choice(self.scope.decimals)
        return Real(name, lambda place: place.given[name])


def _small(number: Real) -> Real:
    return reals.arithmetic("/", number, reals.decimal(32.0))


def _decimal(number: Real) -> Real:
    return _small(number) if number.is_whole else number


def _above_one(number: Real) -> Real:
    size = reals.call("abs", [_decimal(number)])
    return reals.arithmetic("+", size, reals.decimal(1.5))
