"""`let` clauses to IR: what they choose, and what they name.

In: well-typed lets and the environment of an attention. Out: the environment that knows
all of them by name: maps and selections. Not its job: the maps (`check.maps`), which
selections the masks read (`check.selections`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from patternc.analysis.interval import Box, bounds_of, python_bounds
from patternc.check.environment import BoundMap, Environment
from patternc.check.keys import Keys
from patternc.check.maps import Maps, items_of, joined_keys, shown_keys
from patternc.check.reads import INT_INPUT
from patternc.check.terms import Truths
from patternc.check.values import constant_of
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.fold import fold_int
from patternc.ir.nodes import STEPS, Axis, CompareOp, IntExpr
from patternc.ir.selection import (
    Choice,
    Crossing,
    MapExpr,
    MapNumber,
    Reduce,
    Reduction,
    Selection,
    Sharing,
    has_channels,
    key_axis,
    keys_of,
)
from patternc.ir.walk import params_of
from patternc.limits import POSITION
from patternc.source import Span
from patternc.syntax import ast

_CHOICES = {"top": Choice.TOP, "top_p": Choice.TOP_P, "above": Choice.ABOVE}
_MIRRORED = {
    CompareOp.LT: CompareOp.GT,
    CompareOp.LE: CompareOp.GE,
    CompareOp.GT: CompareOp.LT,
    CompareOp.GE: CompareOp.LE,
}


def bind_lets(
    item: ast.Attention, env: Environment, found: list[Diagnostic]
) -> Environment:
    """The environment with every let of an attention; mistakes go to `found`."""
    guards: dict[IntExpr, tuple[Truths, ...]] = {}
    for clause in item.clauses:
        if not isinstance(clause, ast.Let):
            continue
        maps = Lets(env, guards)
        try:
            bound = maps.made(clause)
        except PatternError as error:
            found.extend(error.diagnostics)
            return env  # later ones may read it
        if maps.found:
            found.extend(maps.found)
            return env
        env = replace(env, lets={**env.lets, clause.name.text: bound})
    return env


@dataclass
class Lets(Maps):
    """Lowers one let: a map, a selection or a test."""

    def made(self, let: ast.Let) -> BoundMap | Selection:
        """The map or the selection that a let names. Raises `PatternError`."""
        name, value = let.name.text, let.value
        match value:
            case ast.Call(name=ast.Name(text=text)) if text in _CHOICES:
                return self.selection(name, value)
            case ast.Chain():
                return self.test(name, value)
            case ast.Name(text=text) if isinstance(self.env.lets.get(text), Selection):
                return self.env.lets[text]
            case ast.Call(name=ast.Name(text="widened")):
                return self.widened(name, value)
        made = self.map(value)
        return BoundMap(made, self.size)

    def selection(self, name: str, call: ast.Call) -> Selection:
        """`top(n, map per e, always P, min n, max n)` and its like."""
        plain = [one for one in call.arguments if not isinstance(one, ast.Option)]
        options = {
            one.word: one.value for one in call.arguments if isinstance(one, ast.Option)
        }
        written, per, over = plain[1], None, options.get("over")
        if isinstance(written, ast.Qualified):
            per, over = written.per, written.over or over
            values = self.limited(written)
        else:
            values = self.map(written)
        self.check_values(values, written.span)
        shared = Sharing.ALONE
        if isinstance(over, ast.Name):
            shared = Sharing(over.text)
            keys = keys_of(values)
            same = tuple(key_axis(place) for place in range(len(keys)))
            values = Reduce(Reduction.SUM, values, same, keys, shared, over.span)
        places = self.scope(per, keys_of(values))
        scope = tuple(keys_of(values)[place] for place in places)
        always = options.get("always")
        crossing = options.get("crossing")
        choice = _CHOICES[call.name.text]
        amount = self.amount(plain[0], scope)
        least = self.bound(options.get("min"), scope)
        most = self.bound(options.get("max"), scope)
        self.found.extend(amount_errors(choice, amount, least, most))
        return Selection(
            name,
            choice,
            values,
            amount,
            places,
            least,
            most,
            None if always is None else self.condition(always, keys_of(values)),
            Crossing.KEEP if crossing is None else Crossing(crossing.span.text),
            shared=shared,
            starts_at_0=self.starts(keys_of(values)),
            span=call.span,
        )

    def widened(self, name: str, call: ast.Call) -> Selection:
        """`widened(selection, n)`: one of `n` values, from the key on, is chosen."""
        written, width = call.arguments
        chosen = self.env.lets[written.text] if isinstance(written, ast.Name) else None
        if not isinstance(chosen, Selection):
            raise TypeError(f"not a selection: {written}")
        if len(chosen.keys) != 1 or chosen.per:
            message = f"`{chosen.table}` has no order of its own to be widened along"
            help_text = "`widened` takes a selection of one key, chosen without `per`"
            raise self.error("bad-key", message, written.span, "", help_text)
        size = constant_of(width, self.env, self.found)
        if size is None:
            raise PatternError(self.found)
        if not 1 <= size <= POSITION:
            message = f"a width counts keys, from 1 on: it is not {size}"
            raise self.error("bad-amount", message, width.span)
        reach = chosen.reach + size - 1
        starts = chosen.starts_at_0 if reach == 1 else (False,)
        return replace(
            chosen, table=name, reach=reach, starts_at_0=starts, span=call.span
        )

    def test(self, name: str, chain: ast.Chain) -> Selection:
        """`map < number`: every key for which it holds."""
        link = chain.links[0]
        if link.op is None:
            raise TypeError(f"not a test: {chain}")
        lhs, rhs, op = self.map(chain.first), self.map(link.operand), link.op
        if len(keys_of(lhs)) < len(keys_of(rhs)):
            lhs, rhs, op = rhs, lhs, _MIRRORED[op]
        keys = joined_keys(keys_of(lhs), keys_of(rhs))
        self.check_keys(keys, chain.span)
        values = self.at(lhs, keys, chain.span)
        self.check_values(values, chain.span)
        amount = self.at(rhs, keys, chain.span)
        self.check_values(amount, chain.span)
        return Selection(
            name,
            Choice.ABOVE,
            values,
            amount,
            tuple(range(len(keys))) if keys_of(amount) else (),
            compare=op,
            starts_at_0=self.starts(keys),
            span=chain.span,
        )

    def check_values(self, values: MapExpr, span: Span) -> None:
        if has_channels(values):
            message = "a selection ranks one number for each key"
            label = "this has channels"
            raise self.error("type", message, span, label)

    def scope(self, per: ast.Expr | None, keys: Keys) -> tuple[int, ...]:
        """The keys that `per` names, by number."""
        if per is None:
            return ()
        found = []
        for expr in items_of(per):
            key = fold_int(self.key(expr).expr)
            if key not in keys:
                message = f"`{expr.span.text}` is no key of this map"
                help_text = "group it first: `sum(map by e1, e2) per e1`"
                label = shown_keys(keys)
                raise self.error("bad-key", message, expr.span, label, help_text)
            found.append(keys.index(key))
        return tuple(sorted(set(found)))

    def bound(self, expr: ast.Expr | None, scope: Keys) -> MapExpr | None:
        return None if expr is None else self.amount(expr, scope)

    def amount(self, expr: ast.Expr, scope: Keys) -> MapExpr:
        """A number for each scope. Raises `PatternError` if it needs other keys."""
        made = self.map(expr)
        if has_channels(made):
            raise self.error("type", "an amount is a number", expr.span)
        return self.at(made, scope, expr.span)

    def starts(self, keys: Keys) -> tuple[bool, ...]:
        """For each key whether its least value is 0 in every call."""
        return tuple(self.least(key) == 0 for key in keys)

    def least(self, key: IntExpr) -> int:
        first = -POSITION if self.env.layout is None else 0
        axes = {
            Axis.QUERY: python_bounds(first, POSITION),
            Axis.KEY: python_bounds(0, POSITION),
            Axis.LENGTH: python_bounds(1, POSITION),
        }
        params = {
            name: python_bounds(0 if name in STEPS else -POSITION, POSITION)
            for name in params_of(key)
        }
        elements = python_bounds(*INT_INPUT)
        return int(bounds_of(key, Box(axes, params, lambda read, at: elements)).lo)


def amount_errors(
    choice: Choice, amount: MapExpr, least: MapExpr | None, most: MapExpr | None
) -> Iterator[Diagnostic]:
    """Errors for numbers of the program that no selection can use."""
    match choice, amount:
        case Choice.TOP_P, MapNumber(value=share) if not 0 <= share <= 1:
            message = f"a share lies between 0 and 1, not {share:g}"
            yield Diagnostic("bad-amount", message, amount.span)
    budgets = [least, most, amount if choice is Choice.TOP else None]
    for budget in budgets:
        if isinstance(budget, MapNumber) and budget.value < 0:
            message = f"a budget counts keys: it is not {budget.value:g}"
            yield Diagnostic("bad-amount", message, budget.span)
    match least, most:
        case MapNumber(value=low), MapNumber(value=high, span=span) if low > high:
            message = f"at least {low:g} and at most {high:g} keys"
            yield Diagnostic("bad-amount", message, span)
