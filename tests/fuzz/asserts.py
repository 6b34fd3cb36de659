"""Random assertions about a random program, held to what its masks are.

In: a `Program`. Out: how many assertions were proved and refuted; a `Difference` where
a small length says otherwise. Not its job: that every true assertion is proved.

The definition of `retention` is not repeated here: its assertions are decided, and
nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from patternc import check, passes
from patternc.analysis.prove import decide_all
from patternc.diagnostics import PatternError
from patternc.ir.nodes import Attention
from patternc.source import Source
from patternc.syntax.parse import parse
from tests.fuzz import meaning
from tests.fuzz.difference import Difference
from tests.fuzz.expressions import Drawer
from tests.fuzz.programs import Program, Sizes, tables_for
from tests.fuzz.scope import Scope
from tests.fuzz.terms import Bools, Level, Pairs, within

LENGTHS = (1, 2, 3, 8, 17, 24)


@dataclass(frozen=True, slots=True)
class Claim:
    """An assertion: its kind, its text, and what it compares with."""

    kind: str
    text: str
    other: Pairs | None = None
    bound: Fraction = Fraction(0)
    length: int = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """How many assertions were proved, refuted, and neither."""

    proved: int = 0
    refuted: int = 0
    open: int = 0


def compare_asserts(program: Program, rng: Random) -> Decided:
    """Decide two assertions of a program. Raises `Difference`."""
    claims = [_claim(program, rng) for _ in range(2)]
    lines = "".join(f"    assert {claim.text}\n" for claim in claims)
    head, brace, rest = program.text.partition("attention it")
    start, end, tail = rest.partition("\n}\n")
    text = f"{head}{brace}{start}\n{lines.rstrip()}{end}{tail}"
    try:
        found = check.lower(
            parse(Source("fuzz.pat", text)), "it", dict(program.parameters.given)
        )
    except PatternError as error:
        raise Difference(f"{error}: with\n{lines}") from error
    decisions = decide_all(passes.final_masks(found))
    for claim, decision in zip(claims, decisions, strict=True):
        if decision.holds is not None and claim.kind != "retention":
            _check(program, found, claim, decision.holds, rng)
    verdicts = [decision.holds for decision in decisions]
    return Decided(verdicts.count(True), verdicts.count(False), verdicts.count(None))


def _claim(program: Program, rng: Random) -> Claim:
    scope = Scope(
        parameters=tuple(program.parameters.static), segments=program.segments
    )
    other = Drawer(rng, scope).pairs(2)
    text = within(other, Level.COMPLEMENT)
    length = sum(one.size for one in program.segments) or rng.choice(LENGTHS)
    share = rng.randint(1, 99)
    sign = rng.choice(("<", "<=", ">", ">="))
    return rng.choice(
        (
            Claim("within", f"mask within ({text})", other),
            Claim("holds", f"({text}) within mask", other),
            Claim("equal", f"mask == ({text})", other),
            Claim("union", f"union over h == ({text})", other),
            Claim("every", "every q has k"),
            Claim("retention", f"retention <= {rng.randint(1, 60)}"),
            Claim(
                sign,
                f"density {sign} 0.{share:02d} at N = {length}",
                bound=Fraction(share, 100),
                length=length,
            ),
        )
    )


def _check(
    program: Program, attention: Attention, claim: Claim, holds: bool, rng: Random
) -> None:
    """What is proved must be so at small lengths; a density is known at its own."""
    lengths = [claim.length] if claim.length else [*LENGTHS]
    if program.segments:
        lengths = [sum(one.size for one in program.segments)]
    for length in lengths:
        square = _square(program, attention, length, rng)
        true = _is_true(claim, square)
        if holds and not true:
            raise Difference(f"proved, and false at N = {length}: {claim.text}")
        if claim.length and holds != true:
            raise Difference(f"refuted, and true: {claim.text}")


def _square(
    program: Program, attention: Attention, length: int, rng: Random
) -> Program:
    """The program in a square call with its run-time parameters at their defaults."""
    sizes = Sizes(1, length, length, 0, program.sizes.schedule)
    defaults = {item.name: item.default or 0 for item in attention.params}
    runtime = {**program.parameters.runtime, **defaults}
    tables = tables_for(rng, program.inputs, sizes, program.heads, program.kv_heads)
    parameters = replace(program.parameters, runtime=runtime)
    return replace(program, sizes=sizes, tables=tables, parameters=parameters)


def _is_true(claim: Claim, program: Program) -> bool:
    pairs = list(_sides(claim, program))
    match claim.kind:
        case "within":
            return all(not (mask & ~other).any() for mask, other in pairs)
        case "holds":
            return all(not (other & ~mask).any() for mask, other in pairs)
        case "equal":
            return all(np.array_equal(mask, other) for mask, other in pairs)
        case "union":
            # The pattern may read `h`: it is compared head by head.
            union = np.logical_or.reduce([mask for mask, _ in pairs])
            return all(np.array_equal(union, other) for _, other in pairs)
        case "every":
            return all(mask.any(axis=1).all() for mask, _ in pairs)
    seen = sum(int(mask.sum()) for mask, _ in pairs)
    density = Fraction(seen, sum(mask.size for mask, _ in pairs))
    return {
        "<": density < claim.bound,
        "<=": density <= claim.bound,
        ">": density > claim.bound,
        ">=": density >= claim.bound,
    }[claim.kind]


def _sides(claim: Claim, program: Program) -> Iterator[tuple[Bools, Bools]]:
    """For each head that is not skipped its mask, and the other side."""
    for head in range(program.heads):
        place = meaning.place_of(program, head, 0)
        if meaning.is_skipped(program, place):
            continue
        mask = meaning.mask(program, head, 0)
        other = np.asarray(False) if claim.other is None else claim.other.at(place)
        yield mask, np.broadcast_to(other, mask.shape)
