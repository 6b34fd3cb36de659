"""Traversal of floating expressions: scores, sinks and outputs.

In: a `FloatExpr`. Out: its floating nodes, the expressions of the other two kinds in
it, the inputs that it reads. Not its job: integers and truth values (`ir.walk`), what
an expression means (`backends.floats`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from patternc.ir.nodes import (
    Attention,
    BoolExpr,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatRead,
    FloatSelect,
    FromInt,
    GivenValue,
    IntExpr,
)
from patternc.ir.walk import tables_of


def float_children(expr: FloatExpr) -> tuple[FloatExpr, ...]:
    """The direct floating subexpressions, left to right."""
    match expr:
        case FloatConst() | GivenValue() | FromInt() | FloatRead():
            return ()
        case FloatBinary():
            return (expr.lhs, expr.rhs)
        case FloatCall():
            return (expr.operand,)
        case FloatSelect():
            return (expr.then, expr.otherwise)
        case _:
            assert_never(expr)


def float_subexpressions(expr: FloatExpr) -> Iterator[FloatExpr]:
    """Every floating node, parents first."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(float_children(node)))


def discrete_parts(expr: FloatExpr) -> Iterator[IntExpr | BoolExpr]:
    """The integers and truth values that a floating expression is made from."""
    for node in float_subexpressions(expr):
        match node:
            case FromInt():
                yield node.operand
            case FloatRead():
                yield from node.indices
            case FloatSelect():
                yield node.condition
            case FloatConst() | GivenValue() | FloatBinary() | FloatCall():
                pass
            case _:
                assert_never(node)


def float_reads(expr: FloatExpr) -> tuple[FloatRead, ...]:
    """The elements of floating inputs that it reads, each once, in order."""
    found = (node for node in float_subexpressions(expr) if isinstance(node, FloatRead))
    return tuple(dict.fromkeys(found))


def inputs_of(expr: FloatExpr) -> frozenset[str]:
    """The inputs that it reads, of every element kind."""
    names = {read.table for read in float_reads(expr)}
    return frozenset(names.union(*(tables_of(part) for part in discrete_parts(expr))))


def scored_inputs(attention: Attention) -> frozenset[str]:
    """The floating inputs that a score reads."""
    return frozenset(
        read.table for case in attention.scores for read in float_reads(case.score)
    )
