"""Counterexamples, looked for point by point.

In: an assertion of an attention whose run-time parameters are bound, but for the layer
and the step. Out: a counterexample in words, from a search of small sizes or for a
point that is known. Not its job: proofs (`analysis.prove`): finding nothing here means
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from patternc.ir.evaluate import Bools, dense_mask
from patternc.ir.nodes import (
    AssertEveryRow,
    AssertSets,
    Attention,
    PairSet,
    Quantifier,
    Relation,
)

LAYOUT_LIMIT = 1024
"""A layout of more tokens than this is not searched."""

LENGTHS = (1, 2, 3, 17, 64, 192)
"""The lengths that are searched."""

EARLY_STEPS = range(4)
"""The layers and steps that are searched."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a counterexample is: a length, and values of the layer and the step."""

    length: int
    steps: Mapping[str, int]

    def __str__(self) -> str:
        steps = "".join(f", {name} = {value}" for name, value in self.steps.items())
        return f"N = {self.length}{steps}"


def step_names(attention: Attention) -> tuple[str, ...]:
    """Those of the layer and the step that are left open."""
    return tuple(param.name for param in attention.params)


def search_lengths(attention: Attention) -> tuple[int, ...]:
    """The lengths at which a counterexample is searched for."""
    if attention.layout is None:
        return LENGTHS
    size = attention.layout.size
    return (size,) if size <= LAYOUT_LIMIT else ()


def _places(attention: Attention) -> Iterator[Place]:
    names = step_names(attention)
    for length in search_lengths(attention):
        for values in product(EARLY_STEPS, repeat=len(names)):
            yield Place(length, dict(zip(names, values, strict=True)))


def differing_pair(item: AssertSets, attention: Attention) -> str:
    """A pair that refutes a set assertion, or nothing."""
    for at in _places(attention):
        for head in item.heads:
            lhs = _dense(item.lhs, attention, item.heads, head, at)
            rhs = _dense(item.rhs, attention, item.heads, head, at)
            bad = lhs & ~rhs if item.relation is Relation.WITHIN else lhs != rhs
            if bad.any():
                q, k = (int(place) for place in np.argwhere(bad)[0])
                return describe_pair(item, attention, at, head, q, k)
    return ""


def empty_row(item: AssertEveryRow, attention: Attention) -> str:
    """A query without keys, or nothing."""
    for at in _places(attention):
        for head in item.heads:
            mask = _dense(PairSet(None), attention, item.heads, head, at)
            rows = mask.any(axis=1)
            if not rows.all():
                return describe_row(at, head, int(np.argmin(rows)))
    return ""


def describe_row(at: Place, head: int, q: int) -> str:
    """An empty row, in words."""
    return f"head {head}, q = {q} ({at}): the row is empty"


def describe_pair(
    item: AssertSets, attention: Attention, at: Place, head: int, q: int, k: int
) -> str:
    """A pair that refutes, in words; which side has it the evaluator says."""
    lhs = _dense(item.lhs, attention, item.heads, head, at)[q, k]
    either = Quantifier.UNION in (item.lhs.quantifier, item.rhs.quantifier)
    who = "some head" if either else f"head {head}"
    sides = ("the left side", "the right side")
    has, lacks = sides if lhs else sides[::-1]
    return f"{who}, q = {q}, k = {k} ({at}): in {has}, not in {lacks}"


def _dense(
    side: PairSet, attention: Attention, heads: tuple[int, ...], head: int, at: Place
) -> Bools:
    """One side of a set assertion for one head, point by point: [N, N]."""

    def one(which: int) -> Bools:
        pattern = side.pattern
        mask = attention.case_of(which).mask if pattern is None else pattern
        return dense_mask(mask, which, at.length, at.length, 0, at.steps)

    if side.quantifier is Quantifier.EACH_HEAD:
        return one(head)
    return np.asarray(np.logical_or.reduce([one(which) for which in heads]))
