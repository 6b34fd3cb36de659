"""Random programs over the whole static language, with a call for each.

In: a seeded generator. Out: a `Program`: the text of a `.pat` file, the values of its
parameters, the sizes and tables of one call, and the cases of every clause as `terms`.
Not its job: expressions (`tests.fuzz.expressions`), clauses (`tests.fuzz.clauses`), what
the call must give (`tests.fuzz.meaning`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from patternc.plan.kernel import Schedule
from tests.fuzz import clauses
from tests.fuzz.clauses import Case, Weights
from tests.fuzz.expressions import Drawer
from tests.fuzz.scope import Axis, Declared, InputShape, Scope, Segment
from tests.fuzz.terms import Pairs, Real

SOFT_WORDS = ("w", "reach", "order", "input", "output", "by", "skip", "at", "has")
"""Names of parameters; most are words that are special elsewhere."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a call and of its tiles."""

    batch: int
    n_q: int
    n_k: int
    q_offset: int
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters by kind, with the values of this call.

    `given` are the static ones that the compilation names; the others have defaults.
    """

    static: Mapping[str, int]
    runtime: Mapping[str, int]
    decimals: Mapping[str, float]
    given: Mapping[str, int | float]
    text: str


@dataclass(frozen=True, slots=True)
class Program:
    """A program and a call of it. `tables` have a batch axis of 1 or `sizes.batch`."""

    text: str
    heads: int
    kv_heads: int
    parameters: Parameters
    segments: tuple[Segment, ...]
    inputs: tuple[InputShape, ...]
    sizes: Sizes
    tables: Mapping[str, NDArray[np.generic]]
    masks: tuple[Case[Pairs], ...]
    scores: tuple[Case[Real], ...]
    weights: tuple[Case[Weights], ...]
    sinks: tuple[Case[Real], ...]
    outputs: tuple[Case[Real], ...]
    skipped: Pairs | None

    @property
    def group_size(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads


def draw_program(rng: Random) -> Program:
    """One program with a call of at most 40 queries and keys."""
    heads, kv_heads = rng.choice(
        ((1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (3, 1), (3, 3), (4, 2), (6, 2))
    )
    parameters = _parameters(rng)
    segments, layout = _layout(rng, parameters) if rng.random() < 0.35 else ((), "")
    inputs = _inputs(rng, segments)
    functions, patterns, declarations = _declarations(rng, segments)
    scope = Scope(
        parameters=(*parameters.static, *parameters.runtime),
        decimals=tuple(parameters.decimals),
        functions=functions,
        patterns=patterns,
        inputs=inputs,
        segments=segments,
    )
    reads_own_value = rng.random() < 0.5
    drawn = clauses.draw_clauses(
        rng, scope, heads, kv_heads, parameters.static, reads_own_value
    )
    sizes = _sizes(rng, segments, reads_own_value, bool(drawn.has_order))
    lines = [
        f"heads {heads} kv {kv_heads}" if kv_heads != heads else f"heads {heads}",
        *(["layout scene"] if layout else []),
        *(_declared_input(item) for item in inputs),
        *drawn.lines,
    ]
    body = "".join(f"    {line}\n" for line in lines)
    attention = f"attention it{parameters.text} {{\n{body}}}\n"
    blocks = [*([layout] if layout else []), *declarations, attention]
    rng.shuffle(blocks)  # declarations stand in any order
    return Program(
        "".join(f"{block.rstrip()}\n" for block in blocks),
        heads,
        kv_heads,
        parameters,
        segments,
        inputs,
        sizes,
        tables_for(rng, inputs, sizes, heads, kv_heads),
        drawn.masks,
        drawn.scores,
        drawn.weights,
        drawn.sinks,
        drawn.outputs,
        drawn.skipped,
    )


def _parameters(rng: Random) -> Parameters:
    names = rng.sample(SOFT_WORDS, 4)
    static: dict[str, int] = {}
    runtime: dict[str, int] = {}
    decimals: dict[str, float] = {}
    given: dict[str, int | float] = {}
    parts = []
    if rng.random() < 0.35:
        name, value = names.pop(), rng.randint(1, 12)
        static[name] = value
        if rng.random() < 0.5:
            parts.append(f"{name} = {value}")
        else:
            parts.append(rng.choice((name, f"{name}: int", f"{name} = 7")))
            given[name] = value
    if rng.random() < 0.35:
        name, value = names.pop(), rng.randint(-3, 30)
        runtime[name] = value
        parts.append(f"{name}: runtime" + rng.choice(("", f" = {value}", " = 5")))
    if rng.random() < 0.2:
        name, number = names.pop(), round(rng.uniform(-2, 2), 3)
        decimals[name] = number
        if number < 0 or rng.random() < 0.5:
            given[name] = number
            parts.append(f"{name}: float")
        else:
            parts.append(f"{name} = {number:.3f}")
    if rng.random() < 0.3:  # as in a call that says where it is
        runtime |= {"layer": rng.randint(0, 9), "step": rng.randint(0, 9)}
    else:
        runtime |= {"layer": 0, "step": 0}
    rng.shuffle(parts)
    text = f"({', '.join(parts)})" if parts else ""
    return Parameters(static, runtime, decimals, given, text)


def _layout(rng: Random, parameters: Parameters) -> tuple[tuple[Segment, ...], str]:
    """One to three segments of at most 40 tokens, and the declaration."""
    shape = rng.choice(((5, 4), (3, 6), (2, 3, 3), (3, 2, 2), (7,), (1, 9), (4, 4)))
    axes = dict(zip("fyx"[-len(shape) :], shape, strict=True))
    runtime = [name for name in parameters.runtime if name not in ("layer", "step")]
    segments, parts, start = [], [], 0
    for name, has in (
        ("text", rng.random() < 0.6),
        ("video", True),
        ("tail", rng.random() < 0.3),
    ):
        if not has:
            continue
        own = axes if name == "video" else {}
        size = int(np.prod(shape)) if own else rng.randint(1, 9)
        written = ", ".join(f"{axis} = {count}" for axis, count in own.items())
        if not own:
            written = str(size)
            if parameters.static and rng.random() < 0.3:
                ((written, size),) = parameters.static.items()
        valid = ""
        if rng.random() < 0.2:
            valid = rng.choice([*runtime, "length"])
            written += f", valid = {valid}"
        segments.append(Segment(name, start, size, own, valid))
        parts.append(f"{name}[{written}]")
        start += size
    return tuple(segments), f"layout scene = {' + '.join(parts)}"


def _inputs(rng: Random, segments: tuple[Segment, ...]) -> tuple[InputShape, ...]:
    """None to three inputs of random shapes, and the lengths that a layout names."""
    found = []
    if any(segment.valid == "length" for segment in segments):
        found.append(InputShape("length", "int", (Axis("b"),)))
    if rng.random() < 0.45:
        return tuple(found)
    for name in rng.sample(("doc", "keep", "slope", "gate", "tree"), rng.randint(1, 3)):
        kind = rng.choice(("int", "int", "bool", "float", "float"))
        axes = rng.choice(_SHAPES)
        by, shift = rng.choice((1, 2, 4, 8)), rng.choice((0, 0, 0, 3))
        size = rng.randint(1, 12)
        found.append(
            InputShape(
                name,
                kind,
                tuple(
                    Axis(axis, shift, by)
                    if axis in "qk" and len(axes) != 1
                    else Axis(axis, 0, by if shift else 1)
                    if axis in "qk"
                    else Axis(axis, size=size if axis == "size" else 0)
                    for axis in axes
                ),
                kind == "int" and axes[-1] != "b" and rng.random() < 0.3,
            )
        )
    return tuple(found)


_SHAPES: tuple[tuple[str, ...], ...] = (
    ("k",),
    ("k",),
    ("k",),
    ("q",),
    ("h",),
    ("g",),
    ("b",),
    ("b", "k"),
    ("h", "k"),
    ("q", "h"),
    ("q", "k"),
    ("h", "q", "k"),
    ("size", "size"),
    ("size", "h"),
    ("b", "size"),
)


def _declared_input(item: InputShape) -> str:
    written = []
    for axis in item.axes:
        if axis.kind in "qk":
            written.append(axis.position().text)
        else:
            written.append(str(axis.size) if axis.kind == "size" else axis.kind)
    ending = " sorted" if item.is_sorted else ""
    return f"input {item.name}[{', '.join(written)}] : {item.element}{ending}"


def _declarations(
    rng: Random, segments: tuple[Segment, ...]
) -> tuple[tuple[Declared, ...], tuple[Declared, ...], list[str]]:
    """Functions and patterns of the file; later ones may use those before."""
    functions: list[Declared] = []
    patterns: list[Declared] = []
    texts = []
    for name in ("row", "near")[: rng.choice((0, 0, 1, 2))]:
        scope = Scope(parameters=("t",), functions=tuple(functions), segments=segments)
        body = Drawer(rng, scope).number(2)
        functions.append(Declared(name, ("t",), body))
        texts.append(f"def {name}(t) = {body.text}")
    for name in ("some", "other")[: rng.choice((0, 0, 1, 1, 2))]:
        names = rng.choice(((), ("w",), ("b", "w")))
        default = rng.randint(1, 9) if names and rng.random() < 0.5 else None
        drawer = Drawer(
            rng,
            Scope(
                parameters=names,
                functions=tuple(functions),
                patterns=tuple(patterns),
                segments=segments,
            ),
        )
        pattern = drawer.pairs(2)
        patterns.append(Declared(name, names, pattern, default))
        parameters = [*names]
        if default is not None:
            parameters[-1] += f" = {default}"
        head = f"{name}({', '.join(parameters)})" if names else name
        texts.append(f"pattern {head} = {pattern.text}")
    return tuple(functions), tuple(patterns), texts


def _sizes(
    rng: Random, segments: tuple[Segment, ...], own_value: bool, has_order: bool
) -> Sizes:
    n_k = sum(segment.size for segment in segments) or rng.choice(
        (1, 7, 8, 9, 16, 17, 33, rng.randint(1, 40), rng.randint(1, 40))
    )
    n_q = rng.choice((n_k, n_k, rng.randint(1, 40), 1, 16))
    if segments or own_value:
        n_q = min(n_q, n_k)
    if has_order and rng.random() < 0.7:
        n_q = n_k
    offset = n_k - n_q
    if not segments and rng.random() < 0.4:
        offset = rng.choice((0, 1, -1, rng.randint(-20, 50)))
        if own_value:
            offset = max(0, min(offset, n_k - n_q))
    blocks = (4, 8, 8, 16)
    schedule = Schedule(rng.choice(blocks), rng.choice(blocks))
    return Sizes(rng.choice((1, 1, 1, 2)), n_q, n_k, offset, schedule)


def tables_for(
    rng: Random,
    inputs: tuple[InputShape, ...],
    sizes: Sizes,
    heads: int,
    kv_heads: int,
) -> dict[str, NDArray[np.generic]]:
    """Values for every input of a call of these sizes."""
    numbers = np.random.default_rng(rng.getrandbits(63))
    counts = {"h": heads, "g": kv_heads, "q": sizes.q_offset + sizes.n_q}
    counts["k"] = sizes.n_k
    found = {}
    for item in inputs:
        shape = [sizes.batch if item.axes[0].kind == "b" or rng.random() < 0.4 else 1]
        for axis in item.axes:
            if axis.kind in "qk":
                last = counts[axis.kind] - 1 - axis.shift
                shape.append(max(0, last // axis.by + 1))
            elif axis.kind != "b":
                shape.append(axis.size or counts[axis.kind])
        found[item.name] = _values(numbers, item, tuple(shape))
    return found


def _values(
    numbers: np.random.Generator, item: InputShape, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    share = numbers.random()
    if item.element == "float":
        return numbers.standard_normal(shape)
    if item.element == "bool":
        return numbers.random(shape) < share
    if item.is_sorted:
        return np.cumsum(numbers.random(shape) < share, axis=-1).astype(np.int64)
    if share < 0.5:
        return numbers.integers(0, 4, shape)
    return numbers.integers(-5, 40, shape)
