"""Random clauses of an attention: masks, scores, weights, sinks, outputs, orders, skip.

In: a scope. Out: their lines, and their cases as `terms`. Not its job: expressions
(`tests.fuzz.expressions`), what surrounds the clauses (`tests.fuzz.programs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Generic, TypeVar

from tests.fuzz.expressions import Drawer
from tests.fuzz.scope import Scope, Segment
from tests.fuzz.terms import (
    Pairs,
    Place,
    Real,
    arithmetic,
    chain,
    complement,
    constant,
    in_range,
    in_set,
    intersection,
    known,
    named,
)

Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Case(Generic[Body]):
    """A line of a clause: it holds where `condition` does and no earlier line does."""

    condition: Pairs | None
    body: Body


@dataclass(frozen=True, slots=True)
class Weights:
    """`softmax`, `relu2` or `sigmoid`, with the number that it takes."""

    kind: str
    argument: float = 0.0


@dataclass(frozen=True, slots=True)
class Clauses:
    """The lines, in a random order, and what they mean."""

    lines: tuple[str, ...]
    masks: tuple[Case[Pairs], ...]
    scores: tuple[Case[Real], ...]
    weights: tuple[Case[Weights], ...]
    sinks: tuple[Case[Real], ...]
    outputs: tuple[Case[Real], ...]
    skipped: Pairs | None
    has_order: bool


@dataclass(frozen=True, slots=True)
class Cases:
    """Draws the cases of one attention's clauses."""

    rng: Random
    heads: int
    kv_heads: int
    static: Mapping[str, int]
    skipped: Pairs | None = None

    def chosen(self, condition: Pairs, layer: int = 0) -> set[int]:
        """The heads for which a condition holds."""
        return {
            head for head in range(self.heads) if self._holds(condition, head, layer)
        }

    def _holds(self, condition: Pairs, head: int, layer: int) -> bool:
        group = head // (self.heads // self.kv_heads)
        names = {"h": head, "g": group, "layer": layer, "step": layer, **self.static}
        values = {name: known(value) for name, value in names.items()}
        return bool(condition.at(Place(values, {})))

    def free(self) -> set[int]:
        """The heads that are not skipped."""
        every = set(range(self.heads))
        return every - (self.chosen(self.skipped) if self.skipped else set())

    def condition(self) -> Pairs:
        """A condition on heads."""
        rng = self.rng
        head, group = named("h"), named("g")
        some = constant(rng.randrange(self.heads))
        match rng.randrange(6):
            case 0:
                members = rng.sample(range(self.heads), rng.randint(1, self.heads))
                return in_set(head, [constant(one) for one in members])
            case 1:
                return chain(group, [("==", constant(rng.randrange(self.kv_heads)))])
            case 2:
                return chain(head, [(rng.choice(("<", ">=", "!=")), some)])
            case 3:
                remainder = arithmetic("%", head, constant(rng.randint(2, 3)))
                return chain(remainder, [("==", constant(rng.randint(0, 1)))])
            case 4:
                return in_range(head, some, constant(rng.randint(1, self.heads)))
            case _:
                # A head on the right of a comparison must be one that there is.
                return chain(arithmetic("*", constant(2), head), [("<", group)])

    def stepped(self) -> Pairs:
        """A condition on the layer or the step, and on heads."""
        rng, word = self.rng, named(self.rng.choice(("layer", "step")))
        if rng.random() < 0.5:
            remainder = arithmetic("%", word, constant(rng.randint(2, 4)))
            found = chain(remainder, [("==", constant(rng.randint(0, 1)))])
        else:
            found = chain(
                word, [(rng.choice(("<", ">=")), constant(rng.randint(1, 8)))]
            )
        return intersection([found, self.condition()]) if rng.random() < 0.5 else found

    def draw(
        self,
        word: str,
        body: Callable[[], tuple[str, Body]],
        *,
        complete: bool = False,
        stepped: bool = False,
    ) -> tuple[list[str], list[Case[Body]]]:
        """Lines of a clause, each with its body, its condition and its own heads."""
        rng, lines, cases = self.rng, [], []
        taken = [] if self.skipped is None else [self.skipped]
        left = self.free()
        count = rng.choice((0, 0, 0, 1, 1, 2))
        for _ in range(count):
            by_step = stepped and rng.random() < 0.15
            found = self.stepped() if by_step else self.condition()
            own = set.union(*(self.chosen(found, layer) for layer in range(24)))
            if not own & left:
                continue
            if not by_step:
                left -= own
            parts = [*(complement(one) for one in taken), found]
            written = intersection(parts) if len(parts) > 1 else found
            text, meaning = body()
            lines.append(f"{word} {text} for {written.text}")
            cases.append(Case(found, meaning))
            taken.append(found)
        if left and (complete or rng.random() < 0.6):
            text, meaning = body()
            ending = " otherwise" if taken or rng.random() < 0.2 else ""
            lines.append(f"{word} {text}{ending}")
            cases.append(Case(None, meaning))
        return lines, cases


def draw_clauses(
    rng: Random,
    scope: Scope,
    heads: int,
    kv_heads: int,
    static: Mapping[str, int],
    reads_own_value: bool,
) -> Clauses:
    """Everything that an attention says but its inputs and layout."""
    cases = Cases(rng, heads, kv_heads, static)
    lines: list[str] = []
    if heads > 1 and rng.random() < 0.12:
        condition = cases.condition()
        if 0 < len(cases.chosen(condition)) < heads:
            cases = replace(cases, skipped=condition)
            lines.append(f"skip for {condition.text}")
    drawer = Drawer(rng, scope)
    alone = replace(scope, functions=())  # the body of one may read `k`
    rows = Drawer(rng, replace(alone, indices=("q", "h", "g", "N")))
    sink = Drawer(rng, replace(alone, indices=("h", "g", "N")))
    values = ("o", "o", "v") if reads_own_value else ("o",)

    def mask() -> tuple[str, Pairs]:
        found = drawer.pairs(rng.choice((1, 2, 2, 3)))
        return found.text, found

    def score() -> tuple[str, Real]:
        return _text_of(drawer.real(2, ("s", "s")))

    def sink_logit() -> tuple[str, Real]:
        return _text_of(sink.real(2, ()))

    def output() -> tuple[str, Real]:
        return _text_of(rows.real(2, values))

    found, masks = cases.draw("mask", mask, complete=True, stepped=True)
    lines += found
    scores, sinks, outputs = (list[Case[Real]]() for _ in range(3))
    if rng.random() < 0.3:
        found, scores = cases.draw("score", score, stepped=True)
        lines += found
    weights = list[Case[Weights]]()
    if rng.random() < 0.15:
        found, weights = cases.draw("weights", lambda: _weights(rng))
        lines += found
    if rng.random() < 0.15:
        found, sinks = cases.draw("sink", sink_logit)
        lines += found
    if rng.random() < 0.2:
        found, outputs = cases.draw("output", output, stepped=True)
        lines += found
    orders = _orders(rng, cases, scope) if rng.random() < 0.3 else []
    lines += orders
    rng.shuffle(lines)
    return Clauses(
        tuple(lines),
        tuple(masks),
        tuple(scores),
        tuple(weights),
        tuple(sinks),
        tuple(outputs),
        cases.skipped,
        bool(orders),
    )


def _text_of(real: Real) -> tuple[str, Real]:
    return real.text, real


def _weights(rng: Random) -> tuple[str, Weights]:
    argument = round(rng.uniform(-2, 2), 3)
    match rng.randrange(4):
        case 0:
            return "softmax", Weights("softmax")
        case 1:
            return f"relu2({argument:.3f})", Weights("relu2", argument)
        case 2:
            return f"sigmoid({argument:.3f})", Weights("sigmoid", argument)
        case _:
            return "sigmoid", Weights("sigmoid")


def _orders(rng: Random, cases: Cases, scope: Scope) -> list[str]:
    """An order of the whole sequence, or of some segments; it means nothing."""
    labels = [
        item.name
        for item in scope.inputs
        if item.element == "int"
        and [(axis.kind, axis.by, axis.shift) for axis in item.axes if axis.kind != "b"]
        in ([("k", 1, 0)], [("h", 0, 0), ("k", 1, 0)], [("h", 1, 0), ("k", 1, 0)])
    ]

    def anywhere() -> str:
        if labels and rng.random() < 0.6:
            return f"labels({rng.choice(labels)})"
        return f"phase({rng.randint(1, 9)})"

    def of_segment(segment: Segment) -> str:
        axes = segment.axes
        match rng.randrange(4) if axes else 3:
            case 0:
                return f"axes({', '.join(rng.sample(list(axes), len(axes)))})"
            case 1:
                sizes = [f"{name} = {rng.randint(1, axes[name])}" for name in axes]
                rng.shuffle(sizes)
                return f"tile({', '.join(sizes)})"
            case 2:
                return f"curve({rng.choice(('hilbert', 'morton'))})"
            case _:
                return anywhere()

    if not scope.segments or rng.random() < 0.3:
        return cases.draw("order", lambda: (f"all by {anywhere()}", None))[0]
    lines: list[str] = []
    for segment in scope.segments:
        if rng.random() < 0.6:
            body = _order_body(segment, of_segment)
            lines += cases.draw("order", body)[0]
    return lines


def _order_body(
    segment: Segment, draw: Callable[[Segment], str]
) -> Callable[[], tuple[str, None]]:
    return lambda: (f"{segment.name} by {draw(segment)}", None)
