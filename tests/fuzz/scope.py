"""What a random expression may name, and how what is named is called.

In: names, sizes and bodies. Out: a `Scope`, calls of functions and patterns, and some
standard patterns, spelled out. Not its job: choosing (`tests.fuzz.expressions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.fuzz.terms import (
    INDICES,
    Number,
    Pairs,
    Place,
    arithmetic,
    built_in,
    chain,
    constant,
    inside_body,
    intersection,
    named,
    union,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of a layout: where they start, how many, the sizes of axes if any."""

    name: str
    start: int
    size: int
    axes: Mapping[str, int]
    valid: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an input: its kind `b h g q k size`, and `(position - shift) // by`."""

    kind: str
    shift: int = 0
    by: int = 1
    size: int = 0

    def position(self) -> Number:
        """The position that counts along an axis over queries or keys."""
        found = named(self.kind)
        if self.shift:
            found = arithmetic("-", found, constant(self.shift))
        return arithmetic("//", found, constant(self.by)) if self.by != 1 else found


@dataclass(frozen=True, slots=True)
class InputShape:
    """A declared input; the batch axis, if it has one, is the first."""

    name: str
    element: str
    axes: tuple[Axis, ...]
    is_sorted: bool = False


@dataclass(frozen=True, slots=True)
class Declared:
    """A pattern or a function with the names of its parameters and its meaning."""

    name: str
    parameters: tuple[str, ...]
    body: Number | Pairs
    default: int | None = None  # of the last parameter


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name."""

    parameters: tuple[str, ...] = ()
    decimals: tuple[str, ...] = ()
    functions: tuple[Declared, ...] = ()
    patterns: tuple[Declared, ...] = ()
    inputs: tuple[InputShape, ...] = ()
    segments: tuple[Segment, ...] = ()
    indices: tuple[str, ...] = INDICES
    is_moved: bool = False  # then inputs over queries can't be read


def called_number(declared: Declared, arguments: Sequence[Number]) -> Number:
    """A call of a function of the file."""
    body = declared.body
    if not isinstance(body, Number):
        raise TypeError(f"not a function: {declared.name}")
    at = body.at
    return Number(
        _call_text(declared, arguments),
        lambda place: at(_inside(place, declared, arguments)),
    )


def called_pairs(declared: Declared, arguments: Sequence[Number]) -> Pairs:
    """A pattern by its name."""
    body = declared.body
    if not isinstance(body, Pairs):
        raise TypeError(f"not a pattern: {declared.name}")
    at = body.at
    return Pairs(
        _call_text(declared, arguments),
        lambda place: at(_inside(place, declared, arguments)),
    )


def _inside(place: Place, declared: Declared, arguments: Sequence[Number]) -> Place:
    given = list(arguments)
    if len(given) < len(declared.parameters) and declared.default is not None:
        given.append(constant(declared.default))
    return inside_body(place, declared.parameters, given)


def _call_text(declared: Declared, arguments: Sequence[Number]) -> str:
    written = ", ".join(argument.text for argument in arguments)
    return f"{declared.name}({written})" if arguments else declared.name


def _pattern(name: str, parameters: str, body: Callable[..., Pairs]) -> Declared:
    names = tuple(parameters.split())
    return Declared(name, names, body(*(named(one) for one in names)))


def _standard() -> tuple[Declared, ...]:
    """Some standard patterns, spelled out from the page of the language."""
    q, k, zero = named("q"), named("k"), constant(0)
    back = arithmetic("-", q, k)
    causal = chain(k, [("<=", q)])

    def window(w: Number) -> Pairs:
        return chain(zero, [("<=", back), ("<", w)])

    def band(w: Number) -> Pairs:
        return chain(built_in("abs", [back]), [("<=", w)])

    def sink(n: Number) -> Pairs:
        return chain(k, [("<", n)])

    def streaming(n: Number, w: Number) -> Pairs:
        return intersection([causal, union([sink(n), window(w)])])

    def prefix_lm(p: Number) -> Pairs:
        return union([causal, sink(p)])

    def window_inclusive(w: Number) -> Pairs:
        return chain(zero, [("<=", back), ("<=", w)])

    return (
        _pattern("causal", "", lambda: causal),
        _pattern("window", "w", window),
        _pattern("window_inclusive", "w", window_inclusive),
        _pattern("band", "w", band),
        _pattern("sink", "n", sink),
        _pattern("streaming", "n w", streaming),
        _pattern("prefix_lm", "p", prefix_lm),
    )


STANDARD = _standard()
