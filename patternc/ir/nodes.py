"""The nodes of the pattern IR.

In: nothing. Out: the frozen dataclasses that checking makes, passes rewrite and
planning reads. Not its job: meaning (`ir.evaluate`), traversal (`ir.walk`), text
(`ir.text`).

An expression is an integer (`IntExpr`) or a truth value (`BoolExpr`) over the
indices `q`, `k`, `h`, `N` (absolute query and key position, query head, number of
keys) and run-time parameters. Tile schedules use `qt` and `kt` (query and key tile)
too. `//` and `%` are floor division and its remainder. Equality is structural:
spans do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.source import NOWHERE, Span


class IntOp(Enum):
    """Binary integer operations."""

    ADD = "+"
    SUB = "-"
    MUL = "*"
    FLOORDIV = "//"
    MOD = "%"
    MIN = "min"
    MAX = "max"


class CompareOp(Enum):
    """Comparisons of two integers."""

    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    EQ = "=="
    NE = "!="


class Axis(Enum):
    """What an index counts."""

    QUERY = "q"
    KEY = "k"
    HEAD = "h"
    LENGTH = "N"
    QUERY_TILE = "qt"
    KEY_TILE = "kt"


@dataclass(frozen=True, slots=True)
class Const:
    """An integer literal of at most 64 bits."""

    value: int
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Index:
    """The value of an axis at the point that is looked at."""

    axis: Axis
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Param:
    """A run-time integer parameter, given at each call."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """`lhs op rhs` on integers."""

    op: IntOp
    lhs: IntExpr
    rhs: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Abs:
    """The absolute value of an integer."""

    operand: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Truth:
    """`full` (True) or `empty` (False)."""

    value: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """`lhs op rhs`, a truth value."""

    op: CompareOp
    lhs: IntExpr
    rhs: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class All:
    """True where every term is (`&`); `All(())` is `full`."""

    terms: tuple[BoolExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Any:
    """True where some term is (`|`); `Any(())` is `empty`."""

    terms: tuple[BoolExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """True where `term` is false (`~`)."""

    term: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


IntExpr = Const | Index | Param | Binary | Abs
BoolExpr = Truth | Compare | All | Any | Not
Expr = IntExpr | BoolExpr

UNBOUNDED = 2**30
"""Beyond every length: the end of a loop that runs to the last key or key tile."""

QUERY = Index(Axis.QUERY)
KEY = Index(Axis.KEY)
HEAD = Index(Axis.HEAD)
LENGTH = Index(Axis.LENGTH)
QUERY_TILE = Index(Axis.QUERY_TILE)
KEY_TILE = Index(Axis.KEY_TILE)
FULL_PATTERN = Truth(True)
EMPTY_PATTERN = Truth(False)


@dataclass(frozen=True, slots=True)
class RuntimeParam:
    """A declared run-time parameter of an attention and its default, if any."""

    name: str
    default: int | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class HeadCase:
    """The mask of some query heads: `(q, k)` is visible where `mask` is true."""

    heads: tuple[int, ...]
    mask: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Attention:
    """A checked attention, parameters bound except the run-time ones.

    `heads` query heads share `kv_heads` key and value heads, `heads // kv_heads`
    to each. The cases cover every head once.
    """

    name: str
    heads: int
    kv_heads: int
    params: tuple[RuntimeParam, ...]
    cases: tuple[HeadCase, ...]
    asserts: tuple[Assertion, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def group_size(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    def case_of(self, head: int) -> HeadCase:
        """The case of a query head. Raises `LookupError` if there is none."""
        for case in self.cases:
            if head in case.heads:
                return case
        raise LookupError(f"no case for head {head}")


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
