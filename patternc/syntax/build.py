"""Parser reductions to abstract syntax.

In: the tokens and nodes of one reduction. Out: one node. Called by the parser while it
reads, so that no parse tree is built or walked; it never fails: limits and types are
checked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from lark import Transformer

from patternc.ir.nodes import CompareOp, Element, IntOp, Relation
from patternc.source import Span
from patternc.syntax import ast


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or sign: its terminal (`type`), text and place."""

    type: str
    text: str
    span: Span


Parts = list[Any]  # what the parser reduced: tokens and nodes, as the rule says


class Builder(Transformer[Any, Any]):
    """One method for each rule of the grammar; `parts` are the rule's symbols."""

    def start(self, parts: Parts) -> tuple[ast.Item, ...]:
        return tuple(parts)

    # --- items

    def pattern(self, parts: Parts) -> ast.Pattern:
        name, parameters = _heading(parts)
        return ast.Pattern(name, parameters, parts[-1], _whole(parts))

    def function(self, parts: Parts) -> ast.Function:
        name, parameters = _heading(parts)
        return ast.Function(name, parameters, parts[-1], _whole(parts))

    def layout(self, parts: Parts) -> ast.Layout:
        segments = tuple(part for part in parts if isinstance(part, ast.Segment))
        return ast.Layout(_name(parts[1]), segments, _whole(parts))

    def segment(self, parts: Parts) -> ast.Segment:
        return ast.Segment(_name(parts[0]), _arguments(parts), _whole(parts))

    def argument(self, parts: Parts) -> ast.Argument:
        name = _name(parts[0]) if len(parts) == 3 else None
        return ast.Argument(name, parts[-1], _whole(parts))

    def attention(self, parts: Parts) -> ast.Attention:
        name, parameters = _heading(parts)
        clauses = tuple(part for part in parts if isinstance(part, ast.Clause))
        return ast.Attention(name, parameters, clauses, _whole(parts))

    def parameters(self, parts: Parts) -> tuple[ast.Parameter, ...]:
        return tuple(part for part in parts if isinstance(part, ast.Parameter))

    def parameter(self, parts: Parts) -> ast.Parameter:
        runtime, kind, default, last = False, None, None, parts[0].span
        for part in parts[1:]:
            if isinstance(part, _Kind):
                runtime, kind, last = part.runtime, part.kind, part.span
            else:
                default, last = part, part.span
        span = parts[0].span.to(last)
        return ast.Parameter(_name(parts[0]), runtime, kind, default, span)

    def kind(self, parts: Parts) -> _Kind:
        words = [part.text for part in parts[1:]]
        kind = None if words[-1] == "runtime" else ast.Kind(words[-1])
        return _Kind(words[0] == "runtime", kind, _whole(parts))

    def default(self, parts: Parts) -> ast.Expr:
        value: ast.Expr = parts[1]
        return value

    # --- clauses

    def heads(self, parts: Parts) -> ast.Heads:
        kv_count = parts[3] if len(parts) > 2 else None
        return ast.Heads(parts[1], kv_count, _whole(parts))

    def use_layout(self, parts: Parts) -> ast.UseLayout:
        return ast.UseLayout(_name(parts[1]), _whole(parts))

    def input(self, parts: Parts) -> ast.Input:
        axes = parts[2].items if isinstance(parts[2], _Axes) else ()
        is_sorted = isinstance(parts[-1], Token)
        word = parts[-2] if is_sorted else parts[-1]
        element = Element(word.word.text)
        last = parts[-1].span if is_sorted else word.word.span
        span = parts[0].span.to(last)
        return ast.Input(_name(parts[1]), axes, element, is_sorted, span)

    def axes(self, parts: Parts) -> _Axes:
        return _Axes(_items(parts))

    def element(self, parts: Parts) -> _Element:
        return _Element(parts[0])

    def cases(self, parts: Parts) -> _Cases:
        condition = parts[1] if len(parts) == 2 else None
        return _Cases(condition, condition is None, _whole(parts))

    def mask(self, parts: Parts) -> ast.Mask:
        condition, otherwise, span = _cases(parts)
        or_dense = any(isinstance(p, Token) and p.type == "DENSE" for p in parts)
        return ast.Mask(parts[1], condition, otherwise, or_dense, span)

    def let(self, parts: Parts) -> ast.Let:
        return ast.Let(_name(parts[1]), parts[3], _whole(parts))

    def order(self, parts: Parts) -> ast.Order:
        segment, kind = _name(parts[1]), _name(parts[3])
        return ast.Order(segment, kind, _arguments(parts), *_cases(parts))

    def score(self, parts: Parts) -> ast.Score:
        return ast.Score(parts[1], *_cases(parts))

    def weights(self, parts: Parts) -> ast.Weights:
        with_argument = len(parts) > 3
        argument = parts[3] if with_argument else None
        return ast.Weights(_name(parts[1]), argument, *_cases(parts))

    def sink(self, parts: Parts) -> ast.Sink:
        return ast.Sink(parts[1], *_cases(parts))

    def output(self, parts: Parts) -> ast.Output:
        return ast.Output(parts[1], *_cases(parts))

    def skip(self, parts: Parts) -> ast.Skip:
        return ast.Skip(parts[2], _whole(parts))

    def schedule(self, parts: Parts) -> ast.ScheduleBlock:
        return ast.ScheduleBlock(_arguments(parts), _whole(parts))

    def assertion(self, parts: Parts) -> ast.Assert:
        claim, end = parts[1]
        condition = parts[3] if len(parts) == 4 else None
        span = parts[0].span.to(end if condition is None else condition.span)
        return ast.Assert(claim, condition, span)

    def within(self, parts: Parts) -> _Claim:
        return ast.SetClaim(Relation.WITHIN, parts[0], parts[2]), parts[2].span

    def set_equal(self, parts: Parts) -> _Claim:
        return ast.SetClaim(Relation.EQUAL, parts[0], parts[2]), parts[2].span

    def comparison_of_sets(self, parts: Parts) -> _Claim:
        return ast.BareClaim(parts[0]), parts[0].span

    def every_row(self, parts: Parts) -> _Claim:
        return ast.EveryRowClaim(_name(parts[1]), _name(parts[3])), parts[3].span

    def retention(self, parts: Parts) -> _Claim:
        op = CompareOp(parts[1].text)
        return ast.RetentionClaim(op, parts[1].span, parts[2]), parts[2].span

    def density(self, parts: Parts) -> _Claim:
        op, index = CompareOp(parts[1].text), _name(parts[4])
        claim = ast.DensityClaim(op, parts[1].span, parts[2], index, parts[6])
        return claim, parts[6].span

    # --- expressions

    def union(self, parts: Parts) -> ast.Expr:
        if len(parts) == 1:
            return _only(parts)
        return ast.Union(tuple(parts[::2]), _whole(parts))

    def intersection(self, parts: Parts) -> ast.Expr:
        if len(parts) == 1:
            return _only(parts)
        return ast.Intersection(tuple(parts[::2]), _whole(parts))

    def not_(self, parts: Parts) -> ast.Expr:
        return ast.Complement(parts[1], _whole(parts))

    def sign(self, parts: Parts) -> Token:
        token: Token = parts[0]
        return token

    def chain(self, parts: Parts) -> ast.Expr:
        if len(parts) == 1:
            return _only(parts)
        links = tuple(
            ast.Link(None if sign.type == "IN" else CompareOp(sign.text), operand)
            for sign, operand in zip(parts[1::2], parts[2::2], strict=True)
        )
        return ast.Chain(parts[0], links, _whole(parts))

    def arithmetic(self, parts: Parts) -> ast.Expr:
        op = IntOp(parts[1].text)
        return ast.Arithmetic(op, parts[0], parts[2], _whole(parts))

    def negative(self, parts: Parts) -> ast.Expr:
        return ast.Negative(parts[1], _whole(parts))

    def ratio(self, parts: Parts) -> ast.Expr:
        return ast.Ratio(parts[0], parts[2], _whole(parts))

    def product(self, parts: Parts) -> ast.Expr:
        return ast.Product(parts[0], parts[2], _whole(parts))

    def choice(self, parts: Parts) -> ast.Expr:
        then, condition, otherwise = parts[0], parts[2], parts[4]
        return ast.IfElse(condition, then, otherwise, _whole(parts))

    def qualified(self, parts: Parts) -> ast.Expr:
        found = {part.word: part.value for part in parts[1:]}
        return ast.Qualified(parts[0], **found, span=_whole(parts))

    def where(self, parts: Parts) -> ast.Option:
        return ast.Option("where", parts[1], _whole(parts))

    def rows(self, parts: Parts) -> ast.Option:
        return ast.Option("rows", parts[1], _whole(parts))

    def by(self, parts: Parts) -> ast.Option:
        return ast.Option("by", parts[1], _whole(parts))

    def per(self, parts: Parts) -> ast.Option:
        return ast.Option("per", parts[1], _whole(parts))

    def shared(self, parts: Parts) -> ast.Option:
        return ast.Option("over", _name(parts[1]), _whole(parts))

    def option(self, parts: Parts) -> ast.Option:
        value = _name(parts[1]) if isinstance(parts[1], Token) else parts[1]
        return ast.Option(parts[0].text, value, _whole(parts))

    def tuple_(self, parts: Parts) -> ast.Expr:
        return ast.TupleOf(_items(parts), _whole(parts))

    def indexed(self, parts: Parts) -> ast.Expr:
        return ast.Indexed(parts[0], _items(parts[2:-1]), _whole(parts))

    def coordinate(self, parts: Parts) -> ast.Expr:
        return ast.Coordinate(_name(parts[0]), _name(parts[2]), _whole(parts))

    def call(self, parts: Parts) -> ast.Expr:
        return ast.Call(_name(parts[0]), _items(parts[2:-1]), _whole(parts))

    def name(self, parts: Parts) -> ast.Expr:
        return _name(parts[0])

    def integer(self, parts: Parts) -> ast.Expr:
        digits = parts[0].text.lstrip("0")  # Python refuses thousands of zeros
        return ast.Integer(int(digits or "0"), parts[0].span)

    def decimal(self, parts: Parts) -> ast.Expr:
        return ast.Decimal(Fraction(parts[0].text), parts[0].span)

    def grouped(self, parts: Parts) -> ast.Expr:
        inner: ast.Expr = replace(parts[1], span=_whole(parts))
        return inner

    def set_(self, parts: Parts) -> ast.Expr:
        return ast.SetOf(_items(parts[1:-1]), _whole(parts))

    def the_mask(self, parts: Parts) -> ast.Expr:
        return ast.TheMask(parts[0].span)

    def union_over(self, parts: Parts) -> ast.Expr:
        return ast.UnionOver(_name(parts[2]), _whole(parts))


_Claim = tuple[ast.Claim, Span]  # a claim and the place of its last part


@dataclass(frozen=True, slots=True)
class _Kind:
    """`: runtime kind`, on its way into a parameter."""

    runtime: bool
    kind: ast.Kind | None
    span: Span


@dataclass(frozen=True, slots=True)
class _Cases:
    """`for condition` or `otherwise`, on its way into a clause."""

    condition: ast.Expr | None
    otherwise: bool
    span: Span


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of an input."""

    items: tuple[ast.Expr, ...]


@dataclass(frozen=True, slots=True)
class _Element:
    """The word for an input's elements."""

    word: Token


def _cases(parts: Parts) -> tuple[ast.Expr | None, bool, Span]:
    """The condition, whether it is `otherwise`, and the place of the whole clause."""
    last = parts[-1]
    if isinstance(last, _Cases):
        return last.condition, last.otherwise, _whole(parts)
    return None, False, _whole(parts)


def _arguments(parts: Parts) -> tuple[ast.Argument, ...]:
    return tuple(part for part in parts if isinstance(part, ast.Argument))


def _only(parts: Parts) -> ast.Expr:
    only: ast.Expr = parts[0]
    return only


def _name(token: Token) -> ast.Name:
    return ast.Name(token.text, token.span)


def _whole(parts: Parts) -> Span:
    first: Span = parts[0].span
    last: Span = parts[-1].span
    return first.to(last)


def _heading(parts: Parts) -> tuple[ast.Name, tuple[ast.Parameter, ...]]:
    """The name and the parameters of an item."""
    listed = parts[2] if isinstance(parts[2], tuple) else ()
    return _name(parts[1]), listed


def _items(parts: Parts) -> tuple[ast.Expr, ...]:
    """The expressions of a list, without its commas."""
    return tuple(part for part in parts if not isinstance(part, Token))
