"""Sizes of literals and trees against the limits.

In: a token, or an item of the tree. Out: a diagnostic if it is too large. Nothing here
is recursive, so that a deep tree is refused before anything recursive meets it.
"""

from __future__ import annotations

from typing import assert_never

from patternc.diagnostics import Diagnostic
from patternc.limits import DECIMAL_DIGITS, INT_MAX, NAME_LENGTH, NESTING
from patternc.source import Span
from patternc.syntax import ast
from patternc.syntax.build import Token


def literal_error(token: Token) -> Diagnostic | None:
    """A diagnostic for a name or number that is too long."""
    match token.type:
        case "NAME" if len(token.text) > NAME_LENGTH:
            message = (
                f"a name of {len(token.text)} characters; {NAME_LENGTH} are allowed"
            )
            return Diagnostic("name-length", message, token.span)
        case "NUMBER" if _beyond_64_bits(token.text):
            message = f"the integer does not fit in 64 bits (at most {INT_MAX})"
            return Diagnostic("number-range", message, token.span)
        case "DECIMAL" if len(token.text) > DECIMAL_DIGITS:
            message = f"a decimal number of more than {DECIMAL_DIGITS} digits"
            return Diagnostic("number-range", message, token.span)
    return None


def _beyond_64_bits(digits: str) -> bool:
    """Decided by the length first: Python refuses to convert very long numbers."""
    shortest = digits.lstrip("0")
    return len(shortest) > len(str(INT_MAX)) or int(shortest or "0") > INT_MAX


def too_deep(item: ast.Item) -> Diagnostic | None:
    """A diagnostic if an expression of the item is nested too deeply."""
    pending = [(expr, 1) for expr in _expressions(item)]
    while pending:
        expr, depth = pending.pop()
        if depth > NESTING:
            message = f"nested more than {NESTING} levels deep"
            help_text = "name a part of it: `pattern part = ...`"
            return Diagnostic("nesting", message, _start(expr.span), "", help_text)
        pending.extend((child, depth + 1) for child in children(expr))
    return None


def children(expr: ast.Expr) -> tuple[ast.Expr, ...]:
    """The direct subexpressions, left to right."""
    match expr:
        case ast.Name() | ast.Integer() | ast.Decimal():
            return ()
        case ast.TheMask() | ast.UnionOver() | ast.Coordinate():
            return ()
        case ast.Call():
            return expr.arguments
        case ast.Indexed():
            return (expr.target, *expr.indices)
        case ast.Negative() | ast.Complement():
            return (expr.operand,)
        case ast.Arithmetic() | ast.Ratio():
            return (expr.lhs, expr.rhs)
        case ast.Chain():
            return (expr.first, *(link.operand for link in expr.links))
        case ast.Union() | ast.Intersection():
            return expr.terms
        case ast.SetOf() | ast.TupleOf():
            return expr.items
        case ast.Product():
            return (expr.lhs, expr.rhs)
        case ast.IfElse():
            return (expr.then, expr.condition, expr.otherwise)
        case ast.Qualified():
            return (expr.operand, *qualifiers(expr))
        case ast.Option():
            return (expr.value,)
        case _:
            assert_never(expr)


def qualifiers(expr: ast.Qualified) -> tuple[ast.Expr, ...]:
    """What stands behind `where`, `for`, `by`, `per` and `over`."""
    parts = (expr.where, expr.rows, expr.by, expr.per, expr.over)
    return tuple(part for part in parts if part is not None)


def _start(span: Span) -> Span:
    return Span(span.source, span.start, min(span.start + 1, span.end))


def _expressions(item: ast.Item) -> list[ast.Expr]:
    """The outermost expressions of an item."""
    found = [p.default for p in item.parameters if p.default is not None]
    match item:
        case ast.Pattern() | ast.Function():
            found.append(item.body)
        case ast.Layout():
            for segment in item.segments:
                found.extend(argument.value for argument in segment.arguments)
        case ast.Attention():
            for clause in item.clauses:
                found.extend(clause_expressions(clause))
        case _:
            assert_never(item)
    return found


def clause_expressions(clause: ast.Clause) -> list[ast.Expr]:
    """The outermost expressions of a clause, in the order written."""
    match clause:
        case ast.Heads():
            parts: list[ast.Expr | None] = [clause.count, clause.kv_count]
        case ast.UseLayout():
            parts = []
        case ast.Input():
            parts = [*clause.axes]
        case ast.Let():
            parts = [clause.value]
        case ast.Mask() | ast.Score() | ast.Sink() | ast.Output():
            parts = [clause.body, clause.condition]
        case ast.Order():
            parts = [*(part.value for part in clause.arguments), clause.condition]
        case ast.Weights():
            parts = [clause.argument, clause.condition]
        case ast.Skip():
            parts = [clause.condition]
        case ast.ScheduleBlock():
            parts = [setting.value for setting in clause.settings]
        case ast.Assert():
            parts = [*_claim_expressions(clause.claim), clause.condition]
        case _:
            assert_never(clause)
    return [part for part in parts if part is not None]


def _claim_expressions(claim: ast.Claim) -> list[ast.Expr]:
    match claim:
        case ast.SetClaim():
            return [claim.lhs, claim.rhs]
        case ast.BareClaim():
            return [claim.body]
        case ast.EveryRowClaim():
            return []
        case ast.RetentionClaim():
            return [claim.bound]
        case ast.DensityClaim():
            return [claim.bound, claim.length]
        case _:
            assert_never(claim)
