"""Traversal of IR expressions.

In: an expression. Out: its children, a rewritten copy, a substituted copy, its free
names. Not its job: what an expression means (`ir.evaluate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import assert_never, cast

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    Const,
    Expr,
    Index,
    IntExpr,
    Not,
    Param,
    Read,
    Truth,
)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions, left to right."""
    match expr:
        case Const() | Index() | Param() | Truth():
            return ()
        case Binary() | Compare():
            return (expr.lhs, expr.rhs)
        case All() | Any():
            return expr.terms
        case Not():
            return (expr.term,)
        case Abs():
            return (expr.operand,)
        case Read():
            return expr.indices
        case _:
            assert_never(expr)


def subexpressions(expr: Expr) -> Iterator[Expr]:
    """Every node, parents first."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def rewrite(expr: Expr, rule: Callable[[Expr], Expr]) -> Expr:
    """Apply `rule` to every node, leaves first. `rule` must keep int and bool apart."""
    match expr:
        case Const() | Index() | Param() | Truth():
            return rule(expr)
        case Binary() | Compare():
            lhs = cast(IntExpr, rewrite(expr.lhs, rule))
            rhs = cast(IntExpr, rewrite(expr.rhs, rule))
            return rule(replace(expr, lhs=lhs, rhs=rhs))
        case All() | Any():
            terms = tuple(cast(BoolExpr, rewrite(term, rule)) for term in expr.terms)
            return rule(replace(expr, terms=terms))
        case Not():
            return rule(replace(expr, term=cast(BoolExpr, rewrite(expr.term, rule))))
        case Abs():
            return rule(
                replace(expr, operand=cast(IntExpr, rewrite(expr.operand, rule)))
            )
        case Read():
            indices = tuple(cast(IntExpr, rewrite(at, rule)) for at in expr.indices)
            return rule(replace(expr, indices=indices))
        case _:
            assert_never(expr)


def rewrite_down(expr: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Put what `rule` gives in the place of a node; where it is None, go on below."""
    found = rule(expr)
    if found is not None:
        return found
    parts = [rewrite_down(child, rule) for child in children(expr)]
    match expr:
        case Const() | Index() | Param() | Truth():
            return expr
        case Binary() | Compare():
            lhs, rhs = cast(tuple[IntExpr, IntExpr], tuple(parts))
            return replace(expr, lhs=lhs, rhs=rhs)
        case All() | Any():
            return replace(expr, terms=cast(tuple[BoolExpr, ...], tuple(parts)))
        case Not():
            return replace(expr, term=cast(BoolExpr, parts[0]))
        case Abs():
            return replace(expr, operand=cast(IntExpr, parts[0]))
        case Read():
            return replace(expr, indices=cast(tuple[IntExpr, ...], tuple(parts)))
        case _:
            assert_never(expr)


def rewrite_bool(expr: BoolExpr, rule: Callable[[Expr], Expr]) -> BoolExpr:
    """`rewrite` for a truth value."""
    return cast(BoolExpr, rewrite(expr, rule))


def substitute(expr: BoolExpr, values: Mapping[Axis, IntExpr]) -> BoolExpr:
    """Replace indices by integer expressions, all at once."""

    def rule(node: Expr) -> Expr:
        if isinstance(node, Index) and node.axis in values:
            return values[node.axis]
        return node

    return rewrite_bool(expr, rule)


def axes_of(expr: Expr) -> frozenset[Axis]:
    """The axes that an expression reads."""
    return frozenset(n.axis for n in subexpressions(expr) if isinstance(n, Index))


def params_of(expr: Expr) -> frozenset[str]:
    """The run-time parameters that an expression reads."""
    return frozenset(n.name for n in subexpressions(expr) if isinstance(n, Param))


def tables_of(expr: Expr) -> frozenset[str]:
    """The inputs that an expression reads."""
    return frozenset(n.table for n in subexpressions(expr) if isinstance(n, Read))
