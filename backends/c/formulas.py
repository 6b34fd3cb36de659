"""Formulas of a manifest, and masks, as C expressions.

In: `Formula`s in reverse Polish notation, or the mask of some heads. Out: C text over
64-bit integers. Not its job: what they decide (`patternc.runtime.steps` does the same in
Python).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
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
from patternc.runtime.formula import Formula
from patternc.runtime.manifest import Facts
from patternc.runtime.tiles import HeadGroup

FUNCTIONS = {
    "floor_mod": """\
static int64_t floor_mod(int64_t x, int64_t y) { return x - floor_div(x, y) * y; }
""",
    "smaller": """\
static int64_t smaller(int64_t x, int64_t y) { return x < y ? x : y; }
""",
    "larger": """\
static int64_t larger(int64_t x, int64_t y) { return x > y ? x : y; }
""",
    "absolute": """\
static int64_t absolute(int64_t x) { return x < 0 ? -x : x; }
""",
    "range_length": """\
static int64_t range_length(int64_t lo, int64_t hi, int64_t step) {
  return lo < hi ? ceil_div(hi - lo, step) : 0;
}
""",
}
"""What text may call beside `floor_div` and `ceil_div`, by its name."""

_CALLS = {"//": "floor_div", "%": "floor_mod", "min": "smaller", "max": "larger"}
_WORDS = {"and": "&&", "or": "||"}
_INDICES = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "n"}


def steps_lines(facts: Facts) -> list[str]:
    """Statements that leave in `most` what `steps.most_steps` returns."""
    lines: list[str] = []
    for group in facts.groups:
        lines += ["  steps = 0;", *_group_lines(group)]
        lines.append("  most = most > steps ? most : steps;")
    return lines


def _group_lines(group: HeadGroup) -> list[str]:
    if group.ranges is None:
        return ["  steps = tiles;"]
    names = {"qt": "qt", "n_k": "n_k", "h": str(group.first_head)}
    lines = []
    for part in group.ranges:
        guard, lo, hi = (c_text(x, names) for x in (part.guard, part.lo, part.hi))
        hi = f"{hi} < tiles ? {hi} : tiles"
        lines += [
            f"  if ({guard})",
            f"    steps += range_length({lo}, {hi}, {part.step});",
        ]
    return lines


def c_text(formula: Formula, names: Mapping[str, str]) -> str:
    """One C expression; run-time parameters are fields of `call`."""
    stack: list[str] = []
    for token in formula.tokens:
        if isinstance(token, int):
            stack.append(number(token))
        elif token in names:
            stack.append(names[token])
        elif token.startswith("p_"):
            stack.append(f"call->{token}")
        elif token == "abs":
            stack.append(f"absolute({stack.pop()})")
        elif token == "not":
            stack.append(f"!({stack.pop()})")
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(_pair(token, left, right))
    (text,) = stack
    return text


def _pair(word: str, left: str, right: str) -> str:
    if word in _CALLS:
        return f"{_CALLS[word]}({left}, {right})"
    return f"({left} {_WORDS.get(word, word)} {right})"


def number(value: int) -> str:
    """An integer of at most 64 bits as a constant."""
    if abs(value) < 2**31:
        return f"({value})" if value < 0 else str(value)
    # The least number has no literal: its digits alone are too large.
    return f"INT64_C({value})" if value > -(2**63) else "INT64_MIN"


def mask_text(mask: BoolExpr) -> str | None:
    """A mask as a C expression over `q`, `k`, `h`, `n`; None if it reads an input."""
    try:
        return _mask(mask)
    except LookupError:
        return None


def _mask(expr: Expr) -> str:
    match expr:
        case Const():
            return number(expr.value)
        case Truth():
            return str(int(expr.value))
        case Index():
            return _INDICES[expr.axis]
        case Param():
            return f"call->p_{expr.name}"
        case Binary(op=IntOp() as word) | Compare(op=CompareOp() as word):
            return _pair(word.value, _mask(expr.lhs), _mask(expr.rhs))
        case Abs():
            return f"absolute({_mask(expr.operand)})"
        case All():
            return (
                "(" + " && ".join(map(_mask, expr.terms)) + ")" if expr.terms else "1"
            )
        case Any():
            return (
                "(" + " || ".join(map(_mask, expr.terms)) + ")" if expr.terms else "0"
            )
        case Not():
            return f"!({_mask(expr.term)})"
        case Read():
            raise LookupError(expr.table)
        case _:
            assert_never(expr)


def functions_of(text: str, *, floor: bool = False) -> str:
    """The definitions of what a text calls; `floor_div` too if `floor`."""
    found = [body for name, body in FUNCTIONS.items() if f"{name}(" in text]
    if floor and ("floor_div(" in text or "floor_mod(" in text):
        found.insert(0, _FLOOR_DIV)
    return "".join(found)


_FLOOR_DIV = """\
static int64_t floor_div(int64_t x, int64_t y) {
  int64_t found = x / y;
  return found * y != x && (x < 0) != (y < 0) ? found - 1 : found;
}

"""
