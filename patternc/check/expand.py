"""Typed syntax to IR: patterns and functions are put in place of their names.

In: an expression that `check.types` accepts, and the environment: what `q`, `k`, `h`,
`N`, parameters and inputs stand for. Out: the IR expression, with its bounds. Reports
division by what may be 0, integers beyond 64 bits and masks that grow too large; stops
while expanding, so that an exponential program ends at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from patternc.check import reads, terms
from patternc.check.environment import Environment
from patternc.check.expansion_limits import Limits
from patternc.check.layout_names import lowered_names
from patternc.check.terms import Number, Truths
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import CompareOp, Input, IntOp, Segment
from patternc.ir.selection import (
    Selection,
)
from patternc.source import Span
from patternc.syntax import ast


@dataclass
class Expansion(Limits):
    """One run over one mask, condition or constant; `found` collects errors."""

    found: list[Diagnostic] = field(default_factory=list)
    nodes: int = 0
    level: int = 0

    def truths(self, expr: ast.Expr, env: Environment) -> Truths:
        """The IR of a pattern. Raises `PatternError` beyond the limits."""
        self.enter(expr.span, env)
        result = self.truths_inside(expr, env)
        self.level -= 1
        self.check_size(result, expr.span, env)
        return result

    def truths_inside(self, expr: ast.Expr, env: Environment) -> Truths:
        match expr:
            case ast.Name(text="full" | "empty"):
                return terms.truth(expr.text == "full", expr.span)
            case ast.Name(text=text) if text in env.inputs:
                return self.read_truths(env.inputs[text], (), expr.span, env)
            case ast.Name(text=text) if text in env.lets and text not in env.values:
                return self.member((), expr, expr.span, env)
            case ast.Name():
                body, inner = self.inlined(expr, (), expr.span, env)
                return self.truths(body, inner)
            case ast.IfElse():
                return self.if_else(expr, env)
            case ast.Call():
                body, inner = self.inlined(expr.name, expr.arguments, expr.span, env)
                return self.truths(body, inner)
            case ast.Indexed():
                return self.indexed_truths(expr, env)
            case ast.Complement():
                return terms.complement(self.truths(expr.operand, env), expr.span)
            case ast.Union():
                parts = [self.truths(term, env) for term in expr.terms]
                return terms.any_of(parts, expr.span)
            case ast.Intersection():
                parts = [self.truths(term, env) for term in expr.terms]
                return terms.all_of(parts, expr.span)
            case ast.Chain():
                return self.chain(expr, env)
            case ast.Integer() | ast.Decimal() | ast.Negative() | ast.Arithmetic():
                raise TypeError(f"not a pattern: {expr}")
            case ast.SetOf() | ast.TheMask() | ast.UnionOver():
                raise TypeError(f"not a pattern: {expr}")
            case ast.Coordinate() | ast.Ratio() | ast.TupleOf() | ast.Product():
                raise TypeError(f"not a pattern: {expr}")
            case ast.Qualified() | ast.Option():
                raise TypeError(f"not a pattern: {expr}")
            case _:
                assert_never(expr)

    def if_else(self, expr: ast.IfElse, env: Environment) -> Truths:
        """`a if c else b` is `c & a | ~c & b`."""
        parts = (expr.condition, expr.then, expr.otherwise)
        condition, then, other = (self.truths(part, env) for part in parts)
        against = terms.complement(condition, expr.span)
        chosen = terms.all_of((condition, then), expr.span)
        left = terms.all_of((against, other), expr.span)
        return terms.any_of((chosen, left), expr.span)

    def indexed_truths(self, expr: ast.Indexed, env: Environment) -> Truths:
        """An element of a truth-value input, or a pattern at other coordinates."""
        indices = [self.number(index, env) for index in expr.indices]
        table = self.table(expr.target, env)
        if table is not None:
            return self.read_truths(table, indices, expr.span, env)
        query, key = indices
        return self.truths(expr.target, replace(env, query=query, key=key))

    def read_truths(
        self, table: Input, indices: Sequence[Number], span: Span, env: Environment
    ) -> Truths:
        """An element of a truth-value input as a pattern."""
        number = self.read(table, indices, span, env)
        zero = terms.constant(0, span)
        return terms.compare(CompareOp.NE, number, zero, span)

    def read(
        self, table: Input, indices: Sequence[Number], span: Span, env: Environment
    ) -> Number:
        """An element of an input; a wrong place is reported."""
        errors = reads.read_errors(table, indices, span)
        self.found.extend(self.placed(one, env) for one in errors)
        return reads.read_number(table, indices, span, env)

    def table(self, target: ast.Expr, env: Environment) -> Input | None:
        """The input of that name, if it is one."""
        if not isinstance(target, ast.Name) or target.text in env.values:
            return None
        return env.inputs.get(target.text)

    def segments(self, env: Environment, span: Span) -> tuple[Segment, ...]:
        """The segments of the layout; looking through them is paid for."""
        segments = () if env.layout is None else env.layout.segments
        env.budget.charge(len(segments), env.called or span)
        return segments

    def coordinate(self, expr: ast.Coordinate, env: Environment) -> Number:
        """Raises `PatternError` if the layout has no such axis."""
        for segment in self.segments(env, expr.span):
            if expr.axis.text in dict(segment.axes):
                token = self.number(expr.token, env)
                return reads.coordinate(token, segment, expr.axis.text, expr.span, env)
        errors = lowered_names(env.layout).axis_errors(expr.axis)
        raise PatternError([*self.found, *(self.placed(one, env) for one in errors)])

    def chain(self, expr: ast.Chain, env: Environment) -> Truths:
        """`a < b <= c` is `(a < b) & (b <= c)`; `in` ends a chain."""
        group = expr.links[0].operand
        if expr.links[0].op is None and self.is_selection(group, env):
            first = expr.first
            items = first.items if isinstance(first, ast.TupleOf) else (first,)
            keys = [self.number(item, env) for item in items]
            return self.member(keys, group, expr.span, env)
        lhs, parts, last = self.number(expr.first, env), [], expr.first.span
        for link in expr.links:
            span = last.to(link.operand.span)
            if link.op is None:
                parts.append(self.in_group(lhs, link.operand, span, env))
                break
            rhs = self.number(link.operand, env)
            parts.append(terms.compare(link.op, lhs, rhs, span))
            lhs, last = rhs, link.operand.span
        return terms.all_of(parts, expr.span)

    def is_selection(self, group: ast.Expr, env: Environment) -> bool:
        name = group.text if isinstance(group, ast.Name) else ""
        return name in env.lets and name not in env.values

    def member(
        self, keys: Sequence[Number], group: ast.Expr, span: Span, env: Environment
    ) -> Truths:
        """`keys in selection`. Raises `PatternError` for a wrong number of keys."""
        selection = env.lets[group.text] if isinstance(group, ast.Name) else None
        if not isinstance(selection, Selection):
            raise TypeError(f"not a selection: {group}")
        if len(keys) != len(selection.keys):
            found = reads.key_count_error(selection, len(keys), span)
            raise PatternError([*self.found, self.placed(found, env)])
        return reads.member(selection, keys, span, env)

    def in_group(
        self, item: Number, group: ast.Expr, span: Span, env: Environment
    ) -> Truths:
        """`item in {a, b}`, `item in range(a, b)` or `item in segment`."""
        match group:
            case ast.Name():
                return self.in_segment(item, group, span, env)
            case ast.SetOf():
                parts = [
                    terms.compare(CompareOp.EQ, item, self.number(part, env), span)
                    for part in group.items
                ]
                return terms.any_of(parts, span)
            case ast.Call():
                start, end = (self.number(part, env) for part in group.arguments)
                above = terms.compare(CompareOp.LE, start, item, span)
                below = terms.compare(CompareOp.LT, item, end, span)
                return terms.all_of((above, below), span)
            case _:
                raise TypeError(f"not a set: {group}")

    def in_segment(
        self, item: Number, name: ast.Name, span: Span, env: Environment
    ) -> Truths:
        """Raises `PatternError` if the layout has no such segment."""
        for segment in self.segments(env, name.span):
            if segment.name == name.text:
                inside = reads.in_segment(item, segment, span)
                return terms.all_of((*item.guards, inside), span)
        errors = lowered_names(env.layout).segment_errors(name)
        raise PatternError([*self.found, *(self.placed(one, env) for one in errors)])

    def number(self, expr: ast.Expr, env: Environment) -> Number:
        """The IR of an integer. Raises `PatternError` beyond the limits."""
        self.enter(expr.span, env)
        result = self.number_inside(expr, env)
        self.level -= 1
        env.budget.charge(len(result.guards), env.called or expr.span)
        self.check_size(result, expr.span, env)
        return self.within_64_bits(result, expr.span, env)

    def number_inside(self, expr: ast.Expr, env: Environment) -> Number:
        match expr:
            case ast.Integer():
                return terms.constant(expr.value, expr.span)
            case ast.Name():
                return self.named_number(expr, env)
            case ast.Call():
                return self.call(expr, env)
            case ast.Negative(operand=ast.Integer(value=value)):
                return terms.constant(-value, expr.span)
            case ast.Negative():
                zero = terms.constant(0, expr.span)
                operand = self.number(expr.operand, env)
                return terms.binary(IntOp.SUB, zero, operand, expr.span)
            case ast.Arithmetic():
                lhs, rhs = self.number(expr.lhs, env), self.number(expr.rhs, env)
                if expr.op in (IntOp.FLOORDIV, IntOp.MOD) and rhs.contains(0):
                    self.report_zero(expr, rhs, env)
                    rhs = terms.constant(1, expr.rhs.span)
                return terms.binary(expr.op, lhs, rhs, expr.span)
            case ast.Coordinate():
                return self.coordinate(expr, env)
            case ast.Indexed():
                indices = [self.number(index, env) for index in expr.indices]
                table = self.table(expr.target, env)
                if table is None:
                    raise TypeError(f"not an integer: {expr}")
                return self.read(table, indices, expr.span, env)
            case ast.Decimal() | ast.Ratio() | ast.Complement() | ast.Union():
                raise TypeError(f"not an integer: {expr}")
            case ast.Intersection() | ast.Chain() | ast.SetOf():
                raise TypeError(f"not an integer: {expr}")
            case ast.TheMask() | ast.UnionOver() | ast.TupleOf() | ast.Product():
                raise TypeError(f"not an integer: {expr}")
            case ast.IfElse() | ast.Qualified() | ast.Option():
                raise TypeError(f"not an integer: {expr}")
            case _:
                assert_never(expr)

    def named_number(self, name: ast.Name, env: Environment) -> Number:
        span = name.span
        if name.text in env.values:
            return env.values[name.text]
        if name.text in env.inputs:
            return self.read(env.inputs[name.text], (), span, env)
        index = env.index(name.text, span)
        if index is not None:
            return index
        body, inner = self.inlined(name, (), span, env)
        return self.number(body, inner)

    def call(self, call: ast.Call, env: Environment) -> Number:
        """A built-in function, or one of the file."""
        span, name = call.span, call.name.text
        if name not in ("abs", "min", "max", "clamp", "bitlen"):
            body, inner = self.inlined(call.name, call.arguments, span, env)
            return self.number(body, inner)
        parts = [self.number(argument, env) for argument in call.arguments]
        if name == "abs":
            return terms.absolute(parts[0], span)
        if name == "bitlen":
            return _bit_length(parts[0], span)
        if name == "clamp":
            least = terms.binary(IntOp.MAX, parts[0], parts[1], span)
            return terms.binary(IntOp.MIN, least, parts[2], span)
        op = IntOp.MIN if name == "min" else IntOp.MAX
        result = parts[0]
        for part in parts[1:]:
            result = terms.binary(op, result, part, span)
        return result

    def inlined(
        self,
        name: ast.Name,
        arguments: tuple[ast.Expr, ...],
        span: Span,
        env: Environment,
    ) -> tuple[ast.Expr, Environment]:
        """The body of a pattern or function and the environment to expand it in.

        The body sees its own parameters and the current `q`, `k`, `h` and `N`.
        """
        found = env.scope.find(name.text)
        if found is None:
            raise LookupError(f"not declared: {name.text}")
        declared, home = found
        values: dict[str, Number] = {}
        bare = Environment(
            home, {}, env.heads, env.group_size, env.budget, layout=env.layout
        )
        for place, parameter in enumerate(declared.parameters):
            if place < len(arguments):
                values[parameter.name.text] = self.number(arguments[place], env)
            elif parameter.default is not None:
                values[parameter.name.text] = self.number(parameter.default, bare)
        called = env.called or span
        inner = replace(
            env,
            scope=home,
            values=values,
            called=called,
            inputs={},
            decimals={},
            lets={},
        )
        return declared.body, inner


def _bit_length(number: Number, span: Span) -> Number:
    """How many of 1, 2, 4, ... are at most the number: the bits of what is not negative.

    A power counts as `min(max(number // power, 0), 1)`.
    """
    zero, one = terms.constant(0, span), terms.constant(1, span)
    # Where the number means nothing, neither do its bits, not even none of them.
    total = terms.guarded(zero, number.guards)
    for bit in range(max(number.hi, 0).bit_length()):
        power = terms.constant(2**bit, span)
        ratio = terms.binary(IntOp.FLOORDIV, number, power, span) if bit else number
        least = ratio if number.lo >= 0 else terms.binary(IntOp.MAX, ratio, zero, span)
        counted = terms.binary(IntOp.MIN, least, one, span)
        total = terms.binary(IntOp.ADD, total, counted, span) if bit else counted
    return total
