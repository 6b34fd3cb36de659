"""The abstract syntax of a `.pat` file.

In: nothing. Out: the frozen dataclasses that parsing makes and checking reads: those of
`syntax.expressions` by the same names, clauses, declarations, files. Names are not
resolved and types not known here. Every node has the narrowest span that shows
it; structural equality ignores spans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.ir.nodes import CompareOp, Element, Relation
from patternc.source import NOWHERE, Source, Span
from patternc.syntax.expressions import (
    Arithmetic,
    Call,
    Chain,
    Complement,
    Coordinate,
    Decimal,
    Expr,
    IfElse,
    Indexed,
    Integer,
    Intersection,
    Link,
    Name,
    Negative,
    Option,
    Product,
    Qualified,
    Ratio,
    SetOf,
    TheMask,
    TupleOf,
    Union,
    UnionOver,
)

__all__ = [
    "Argument",
    "Arithmetic",
    "Assert",
    "Attention",
    "BareClaim",
    "Call",
    "Case",
    "Chain",
    "Claim",
    "Clause",
    "Complement",
    "Coordinate",
    "Decimal",
    "DensityClaim",
    "EveryRowClaim",
    "Expr",
    "File",
    "Function",
    "Heads",
    "IfElse",
    "Indexed",
    "Input",
    "Integer",
    "Intersection",
    "Item",
    "Kind",
    "Layout",
    "Let",
    "Link",
    "Mask",
    "Name",
    "Negative",
    "Option",
    "Order",
    "Output",
    "Parameter",
    "Pattern",
    "Product",
    "Qualified",
    "Ratio",
    "RetentionClaim",
    "Score",
    "Segment",
    "SetClaim",
    "SetOf",
    "Sink",
    "Skip",
    "TheMask",
    "TupleOf",
    "Union",
    "UnionOver",
    "UseLayout",
    "Weights",
]


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
class Let:
    """`let name = value`: a map or a selection."""

    name: Name
    value: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Mask:
    """`mask body`, for all heads, `for` some, or `otherwise` for those left.

    `or_dense` stands for `else dense when cheaper`.
    """

    body: Expr
    condition: Expr | None
    otherwise: bool
    or_dense: bool = False
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


Clause = Heads | UseLayout | Input | Let | Case | Skip | ScheduleBlock | Assert


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
