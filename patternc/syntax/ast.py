"""The abstract syntax of a `.pat` file.

In: nothing. Out: the frozen dataclasses that parsing makes and checking reads. Names
are not resolved and types not known here. Every node has the narrowest span that shows
it; structural equality ignores spans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from patternc.ir.nodes import CompareOp, Element, IntOp, Relation
from patternc.source import NOWHERE, Source, Span


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
    | TheMask
    | UnionOver
)


class Kind(Enum):
    """The declared type of a parameter."""

    INT = "int"
    FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name: runtime kind = default`; the kind is None where none is written."""

    name: Name
    runtime: bool
    kind: Kind | None
    default: Expr | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pattern name(parameters) = body`, a set of pairs."""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Function:
    """`def name(parameters) = body`, an integer."""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Heads:
    """`heads count kv kv_count`."""

    count: Expr
    kv_count: Expr | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Mask:
    """`mask body`, for all heads, `for` some, or `otherwise` for those left."""

    body: Expr
    condition: Expr | None
    otherwise: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Argument:
    """`value` or `name = value`, in a segment, an order or a schedule."""

    name: Name | None
    value: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """`name[size]` or `name[axis = size, ...]`, with `valid = count` now and then."""

    name: Name
    arguments: tuple[Argument, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class UseLayout:
    """`layout name` in an attention."""

    name: Name
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Input:
    """`input name[axes] : element sorted`."""

    name: Name
    axes: tuple[Expr, ...]
    element: Element
    is_sorted: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """`order segment by kind(arguments)`, for some heads."""

    segment: Name
    kind: Name
    arguments: tuple[Argument, ...]
    condition: Expr | None
    otherwise: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Score:
    """`score body`, for some heads."""

    body: Expr
    condition: Expr | None
    otherwise: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Weights:
    """`weights kind(argument)`, for some heads."""

    kind: Name
    argument: Expr | None
    condition: Expr | None
    otherwise: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Sink:
    """`sink body`, for some heads."""

    body: Expr
    condition: Expr | None
    otherwise: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Output:
    """`output body`, for some heads."""

    body: Expr
    condition: Expr | None
    otherwise: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Skip:
    """`skip for condition`."""

    condition: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ScheduleBlock:
    """`schedule { block_q = 64, block_k = 128, warps = 8, stages = 2 }`."""

    settings: tuple[Argument, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Case = Mask | Order | Score | Weights | Sink | Output


@dataclass(frozen=True, slots=True)
class SetClaim:
    """`lhs within rhs` or `lhs == rhs`."""

    relation: Relation
    lhs: Expr
    rhs: Expr


@dataclass(frozen=True, slots=True)
class BareClaim:
    """An assert of one expression: a comparison of two sets, or a mistake."""

    body: Expr


@dataclass(frozen=True, slots=True)
class EveryRowClaim:
    """`every q has k`."""

    row: Name
    item: Name


@dataclass(frozen=True, slots=True)
class RetentionClaim:
    """`retention op bound`."""

    op: CompareOp
    op_span: Span
    bound: Expr


@dataclass(frozen=True, slots=True)
class DensityClaim:
    """`density op bound at N = length`."""

    op: CompareOp
    op_span: Span
    bound: Expr
    index: Name
    length: Expr


Claim = SetClaim | BareClaim | EveryRowClaim | RetentionClaim | DensityClaim


@dataclass(frozen=True, slots=True)
class Assert:
    """`assert claim for condition`."""

    claim: Claim
    condition: Expr | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Clause = Heads | UseLayout | Input | Case | Skip | ScheduleBlock | Assert


@dataclass(frozen=True, slots=True)
class Attention:
    """`attention name(parameters) { clauses }`."""

    name: Name
    parameters: tuple[Parameter, ...]
    clauses: tuple[Clause, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """`layout name = segments`."""

    name: Name
    segments: tuple[Segment, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """None: names in a layout are those of the attention that uses it."""
        return ()


Item = Pattern | Function | Layout | Attention


@dataclass(frozen=True, slots=True)
class File:
    """A whole file, in the order written."""

    items: tuple[Item, ...]
    source: Source = field(default=NOWHERE.source, compare=False, repr=False)
