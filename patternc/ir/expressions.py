"""Expressions of the pattern IR: integers, truth values and floating numbers.

In: nothing. Out: frozen dataclasses. Not its job: meaning (`ir.evaluate`), traversal
(`ir.walk`), text (`ir.text`).

An expression is an integer (`IntExpr`), a truth value (`BoolExpr`) or, in scores and
outputs, a floating number (`FloatExpr`) over the indices `q`, `k`, `h`, `N` (absolute
query and key position, query head, number of keys) and run-time parameters. Tile
schedules use `qt` and `kt` (query and key tile) too. `//` and `%` are floor division and
its remainder. Equality is structural: spans do not count.
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
    FIRST = "first key"  # those of a map: see `ir.selection`
    SECOND = "second key"
    THIRD = "third key"


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
class Read:
    """An element of an integer or truth-value input (a truth value reads as 0 or 1).

    The batch element, where the input has a batch axis, is that of the call: `indices`
    leave it out. Every index is inside its axis wherever the comparison around it
    matters: checking puts `0 <= index < size` beside the comparison that reads.
    """

    table: str
    indices: tuple[IntExpr, ...]
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


IntExpr = Const | Index | Param | Binary | Abs | Read
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


class FloatOp(Enum):
    """Binary operations on floating numbers."""

    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    MIN = "min"
    MAX = "max"


class FloatFunction(Enum):
    """Functions of one floating number."""

    NEGATE = "-"
    ABS = "abs"
    EXP = "exp"
    LOG = "log"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    SQRT = "sqrt"
    RELU = "relu"
    SIGN = "sign"  # in derivatives only (`ir.derive`): -1, 0 or 1


class Given(Enum):
    """The floating values that a kernel has at hand.

    SCORE is `s`, the scaled logit q.k * scale in natural units (in `score` only);
    OUTPUT is `o`, an element of the output row, and VALUE is `v`, the same element of
    the query token's own value row (in `output` only).
    """

    SCORE = "s"
    OUTPUT = "o"
    VALUE = "v"


@dataclass(frozen=True, slots=True)
class FloatConst:
    """A number written with or without a decimal point."""

    value: float
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class GivenValue:
    """`s`, `o` or `v`."""

    which: Given
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FromInt:
    """An integer expression as a floating number."""

    operand: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatRead:
    """An element of a floating input; indices as for `Read`, read as 0 outside."""

    table: str
    indices: tuple[IntExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatBinary:
    """`lhs op rhs` on floating numbers."""

    op: FloatOp
    lhs: FloatExpr
    rhs: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatCall:
    """A function of one floating number."""

    function: FloatFunction
    operand: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatSelect:
    """`then` where `condition` holds, else `otherwise`: `where(c, a, b)`."""

    condition: BoolExpr
    then: FloatExpr
    otherwise: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


FloatExpr = (
    FloatConst
    | GivenValue
    | FromInt
    | FloatRead
    | FloatBinary
    | FloatCall
    | FloatSelect
)
