"""What a program asserts about its masks, in the pattern IR.

In: expressions. Out: frozen dataclasses. Not its job: proving them (`analysis.prove`,
`analysis.count`, `analysis.retention`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.ir.expressions import BoolExpr, CompareOp
from patternc.source import NOWHERE, Span


class Quantifier(Enum):
    """How an assertion's set depends on the head."""

    EACH_HEAD = "each"  # the statement holds for every head on its own
    UNION = "union"  # the sets of all heads are united first


@dataclass(frozen=True, slots=True)
class PairSet:
    """A set of (q, k) pairs in an assertion.

    `pattern` is None for the attention's own mask. With `quantifier` UNION the
    sets of the heads that the assertion speaks of are united.
    """

    pattern: BoolExpr | None
    quantifier: Quantifier = Quantifier.EACH_HEAD
    span: Span = field(default=NOWHERE, compare=False, repr=False)


class Relation(Enum):
    """How the two sides of a set assertion compare."""

    WITHIN = "within"
    EQUAL = "=="


@dataclass(frozen=True, slots=True)
class AssertSets:
    """`assert lhs within rhs` or `assert lhs == rhs`, for every length."""

    relation: Relation
    lhs: PairSet
    rhs: PairSet
    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AssertEveryRow:
    """`assert every q has k`: no query has an empty row, at every length."""

    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AssertRetention:
    """`assert retention <= bound`: see `analysis.retention`; any length."""

    op: CompareOp
    bound: int
    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AssertDensity:
    """`assert density < bound at N = length`, the mean over `heads`.

    `bound` is kept as the fraction `numerator / denominator` that was written.
    """

    op: CompareOp
    numerator: int
    denominator: int
    length: int
    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Assertion = AssertSets | AssertEveryRow | AssertRetention | AssertDensity
