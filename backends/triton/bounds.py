"""IR expressions as interval arithmetic, in PyTorch text.

In: a mask. Out: the text that says, for many boxes of pairs at once, whether the mask
may be true and whether it may be false. Not its job: the arithmetic itself, whose
functions are in `lists.py.tmpl` and mirror `analysis.interval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from patternc.backends.triton.expr import Printer
from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Binary,
    Compare,
    CompareOp,
    Const,
    Expr,
    Index,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)

_ATOM = 7

_INT_FUNCTIONS = {
    IntOp.ADD: "sum_of",
    IntOp.SUB: "difference_of",
    IntOp.MUL: "product_of",
    IntOp.FLOORDIV: "quotient_of",
    IntOp.MOD: "remainder_of",
    IntOp.MIN: "least_of",
    IntOp.MAX: "greatest_of",
}

_COMPARISONS = {
    CompareOp.LT: ("less", False),
    CompareOp.LE: ("at_most", False),
    CompareOp.GT: ("less", True),
    CompareOp.GE: ("at_most", True),
    CompareOp.EQ: ("equal", False),
    CompareOp.NE: ("unequal", False),
}
"""The function, and whether its arguments change places."""


@dataclass(frozen=True)
class BoundsPrinter(Printer):
    """Calls on pairs: (least, greatest) of an integer, (may be true, may be false)."""

    widen: str = "{}"

    def _text(self, expr: Expr, wide: bool) -> tuple[str, int]:
        return self._call_text(expr), _ATOM

    def _call_text(self, expr: Expr) -> str:
        if expr in self.hoisted:
            return self.hoisted[expr]
        match expr:
            case Const():
                return f"exactly({expr.value})"
            case Index():
                return self.names[expr.axis]
            case Param():
                return self.param.format(expr.name)
            case Binary():
                return self._apply(_INT_FUNCTIONS[expr.op], expr.lhs, expr.rhs)
            case Abs():
                return self._apply("absolute_of", expr.operand)
            case Read():
                raise LookupError(f"no bounds are known of the input `{expr.table}`")
            case Truth():
                return f"always({expr.value})"
            case Compare():
                name, swaps = _COMPARISONS[expr.op]
                sides = (expr.rhs, expr.lhs) if swaps else (expr.lhs, expr.rhs)
                return self._apply(name, *sides)
            case Not():
                return self._apply("opposite", expr.term)
            case All():
                return self._apply("all_of", *expr.terms)
            case Any():
                return self._apply("any_of", *expr.terms)
            case _:
                assert_never(expr)

    def _apply(self, name: str, *arguments: Expr) -> str:
        return f"{name}({', '.join(self._call_text(item) for item in arguments)})"
