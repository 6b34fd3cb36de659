"""The IR as text, for `explain` and for debugging.

In: an expression or an attention. Out: text in the language's own notation, with as
few brackets as precedence allows. Not its job: text for a target language (backends
have printers of their own).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Attention,
    Binary,
    Compare,
    Const,
    Expr,
    Index,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)

_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _ATOM = range(7)

_PRECEDENCE = {
    IntOp.ADD: _SUM,
    IntOp.SUB: _SUM,
    IntOp.MUL: _PRODUCT,
    IntOp.FLOORDIV: _PRODUCT,
    IntOp.MOD: _PRODUCT,
}


def print_expr(expr: Expr) -> str:
    """An expression in the language's notation."""
    return _print(expr, _OR)


def print_attention(attention: Attention) -> str:
    """An attention: heads, run-time parameters and the mask of each head group."""
    lines = [f"attention {attention.name} {{"]
    lines.append(f"    heads {attention.heads} kv {attention.kv_heads}")
    for param in attention.params:
        default = "" if param.default is None else f" = {param.default}"
        lines.append(f"    runtime {param.name}{default}")
    for case in attention.cases:
        heads = print_heads(case.heads)
        lines.append(f"    mask  {print_expr(case.mask)}  for h in {heads}")
    return "\n".join([*lines, "}"])


def print_heads(heads: Sequence[int]) -> str:
    """A set of heads, consecutive ones as `a..b`: `{0..3, 12..15}`."""
    runs: list[list[int]] = []
    for head in sorted(heads):
        if runs and runs[-1][1] == head - 1:
            runs[-1][1] = head
        else:
            runs.append([head, head])
    parts = [f"{lo}" if lo == hi else f"{lo}..{hi}" for lo, hi in runs]
    return "{" + ", ".join(parts) + "}"


def _print(expr: Expr, outer: int) -> str:
    text, inner = _text_and_precedence(expr)
    return f"({text})" if inner < outer else text


def _text_and_precedence(expr: Expr) -> tuple[str, int]:
    match expr:
        case Const():
            return str(expr.value), _ATOM if expr.value >= 0 else _PRODUCT
        case Index():
            return expr.axis.value, _ATOM
        case Param():
            return expr.name, _ATOM
        case Abs():
            return f"abs({_print(expr.operand, _OR)})", _ATOM
        case Read():
            indices = ", ".join(_print(index, _OR) for index in expr.indices)
            return f"{expr.table}[{indices}]" if indices else expr.table, _ATOM
        case Binary(op=IntOp.MIN | IntOp.MAX):
            arguments = f"{_print(expr.lhs, _OR)}, {_print(expr.rhs, _OR)}"
            return f"{expr.op.value}({arguments})", _ATOM
        case Binary():
            level = _PRECEDENCE[expr.op]
            if expr.op is IntOp.SUB and expr.lhs == Const(0):
                return f"-{_print(expr.rhs, _ATOM)}", _PRODUCT
            lhs, rhs = _print(expr.lhs, level), _print(expr.rhs, level + 1)
            return f"{lhs} {expr.op.value} {rhs}", level
        case Truth():
            return "full" if expr.value else "empty", _ATOM
        case Compare():
            lhs, rhs = _print(expr.lhs, _SUM), _print(expr.rhs, _SUM)
            return f"{lhs} {expr.op.value} {rhs}", _COMPARE
        case Not():
            return f"~{_print(expr.term, _ATOM)}", _NOT
        case All():
            return _join(" & ", expr.terms, _AND, "full")
        case Any():
            return _join(" | ", expr.terms, _OR, "empty")
        case _:
            assert_never(expr)


def _join(sign: str, terms: Sequence[Expr], level: int, none: str) -> tuple[str, int]:
    if not terms:
        return none, _ATOM
    if len(terms) == 1:
        return _text_and_precedence(terms[0])
    return sign.join(_print(term, level + 1) for term in terms), level
