"""The abstract syntax of expressions.

In: nothing. Out: the frozen dataclasses of everything that stands in a clause or a
body, from names to comparisons; `patternc.syntax.ast` has them all and the rest. Not
its job: clauses and declarations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from patternc.ir.nodes import CompareOp, IntOp
from patternc.source import NOWHERE, Span


@dataclass(frozen=True, slots=True)
class Name:
    """A name, where it is used or declared."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer literal, at most 64 bits."""

    value: int
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Decimal:
    """A decimal literal, exactly as written: `0.07` is 7/100."""

    value: Fraction
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`."""

    name: Name
    arguments: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Indexed:
    """`target[indices]`: an element of an input, or a pattern at other coordinates."""

    target: Expr
    indices: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Coordinate:
    """`token.axis`: where a token lies on an axis of its segment."""

    token: Name
    axis: Name
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Negative:
    """`-operand`."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Complement:
    """`~operand`."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`lhs op rhs` on integers."""

    op: IntOp
    lhs: Expr
    rhs: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ratio:
    """`lhs / rhs` on decimal numbers."""

    lhs: Expr
    rhs: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a comparison chain: `op operand`, or `in operand` if op is None."""

    op: CompareOp | None
    operand: Expr


@dataclass(frozen=True, slots=True)
class Chain:
    """`first op operand op operand ...`: true where every step is."""

    first: Expr
    links: tuple[Link, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Union:
    """`a | b | ...`, two terms or more."""

    terms: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Intersection:
    """`a & b & ...`, two terms or more."""

    terms: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SetOf:
    """`{a, b, ...}`, one item or more."""

    items: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TupleOf:
    """`(a, b, ...)`, two items or more: a key of a selection with several."""

    items: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Product:
    """`lhs @ rhs`: the sums over the channels of both."""

    lhs: Expr
    rhs: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IfElse:
    """`then if condition else otherwise`."""

    condition: Expr
    then: Expr
    otherwise: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Qualified:
    """`operand where P for R by E per E over h`, one of them at least."""

    operand: Expr
    where: Expr | None = None
    rows: Expr | None = None
    by: Expr | None = None
    per: Expr | None = None
    over: Name | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Option:
    """`always P`, `min n`, `max n`, `over h` or `crossing drop` of a selection."""

    word: str
    value: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TheMask:
    """`mask` in an assert: the attention's own mask."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class UnionOver:
    """`union over h` in an assert: the masks of all heads, united."""

    index: Name
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Expr = (
    Name
    | Integer
    | Decimal
    | Call
    | Indexed
    | Coordinate
    | Negative
    | Complement
    | Arithmetic
    | Ratio
    | Chain
    | Union
    | Intersection
    | SetOf
    | TupleOf
    | Product
    | IfElse
    | Qualified
    | Option
    | TheMask
    | UnionOver
)
