"""Where an expression is expanded, and how much work a check may do.

In: the scope, the values of names and the sizes that are known. Out: `Environment` and
`Budget`, which `check.expand` carries along. Not its job: expanding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from patternc.check import terms
from patternc.check.scope import Scope
from patternc.check.terms import Number
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import Axis, Input, IntOp, Layout
from patternc.ir.selection import (
    MapExpr,
    Selection,
)
from patternc.limits import FILE_EXPANSION, POSITION
from patternc.source import Span


class Exhausted(Exception):
    """The budget of a check is spent; `diagnostic` says where."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


@dataclass
class Budget:
    """The work that one check may still do, over all masks and entries."""

    left: int = FILE_EXPANSION

    def charge(self, cost: int, span: Span) -> None:
        """Spend `cost` operations for `span`. Raises `Exhausted`."""
        self.left -= cost
        if self.left < 0:
            message = f"this check takes over {FILE_EXPANSION} operations"
            label = "it stopped here"
            raise Exhausted(Diagnostic("expansion", message, span, label))


@dataclass(frozen=True, slots=True)
class BoundMap:
    """A map with a name, and how many nodes it has, written out."""

    map: MapExpr
    size: int


@dataclass(frozen=True, slots=True)
class Environment:
    """What the names of a body stand for, at one place of the expansion.

    `inputs`, `decimals` and `lets` are those of the attention and unknown in a
    pattern's body; `layout` is known everywhere in an attention.
    """

    scope: Scope
    values: Mapping[str, Number]
    heads: int
    group_size: int
    budget: Budget
    query: Number | None = None  # None: the plain index
    key: Number | None = None
    called: Span | None = None  # the outermost call that this body is expanded for
    decimals: Mapping[str, Fraction] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    layout: Layout | None = None
    lets: Mapping[str, BoundMap | Selection] = field(default_factory=dict)

    def index(self, name: str, span: Span) -> Number | None:
        """An index of the language, with its bounds; None for other names."""
        layout = self.layout
        last = POSITION if layout is None else layout.size - 1
        match name:
            case "q":
                first = -POSITION if layout is None else 0
                plain = terms.index(Axis.QUERY, first, last, span)
                return self.query or plain
            case "k":
                return self.key or terms.index(Axis.KEY, 0, last, span)
            case "h":
                return terms.index(Axis.HEAD, 0, self.heads - 1, span)
            case "g":
                head = terms.index(Axis.HEAD, 0, self.heads - 1, span)
                if self.group_size == 1:
                    return head
                size = terms.constant(self.group_size, span)
                return terms.binary(IntOp.FLOORDIV, head, size, span)
            case "N":
                if layout is not None:
                    return terms.constant(layout.size, span)
                return terms.index(Axis.LENGTH, 1, POSITION, span)
            case "layer" | "step":
                return terms.parameter(name, 0, POSITION, span)
        return None
