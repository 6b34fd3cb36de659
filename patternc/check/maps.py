"""Maps to IR, with their keys.

In: the well-typed value of a `let` (`check.let_types`) and the environment of an
attention. Out: an `ir.selection` map. Not its job: types, choosing among keys
(`check.selecting`), what a map is worth (`backends.maps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from patternc.check import terms
from patternc.check.environment import BoundMap, Environment
from patternc.check.expand import Expansion
from patternc.check.floats import Floats
from patternc.check.keys import (
    Keys,
    float_through,
    number_through,
    own_keys,
    truths_through,
)
from patternc.check.let_types import BASES, REDUCTIONS, written_keys
from patternc.check.terms import Number, Truths
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.fold import fold_bool, fold_int
from patternc.ir.nodes import (
    Axis,
    BoolExpr,
    CompareOp,
    Const,
    FloatConst,
    FromInt,
    IntExpr,
    IntOp,
)
from patternc.ir.selection import (
    KEY_AXES,
    Choice,
    Count,
    Logits,
    MapAt,
    MapBinary,
    MapCall,
    MapExpr,
    MapFunction,
    MapNumber,
    MapOp,
    MapScale,
    MapValue,
    MapWhere,
    Norm,
    Product,
    Reduce,
    Reduction,
    Rows,
    Selection,
    Sharing,
    Softmax,
    Tokens,
    has_channels,
    keys_of,
)
from patternc.ir.text import print_expr
from patternc.ir.walk import axes_of
from patternc.limits import EXPANSION
from patternc.source import Span
from patternc.syntax import ast
from patternc.syntax.measure import children

_OPS = {
    IntOp.ADD: MapOp.ADD,
    IntOp.SUB: MapOp.SUB,
    IntOp.MUL: MapOp.MUL,
    IntOp.FLOORDIV: MapOp.FLOORDIV,
}
_CHOICES = {"top": Choice.TOP, "top_p": Choice.TOP_P, "above": Choice.ABOVE}
_MIRRORED = {
    CompareOp.LT: CompareOp.GT,
    CompareOp.LE: CompareOp.GE,
    CompareOp.GT: CompareOp.LT,
    CompareOp.GE: CompareOp.LE,
}


@dataclass
class Maps:
    """Lowers one let; errors of the integers in it go to `found`.

    `guards` are what must hold for a key to mean something, for all lets so far.
    """

    env: Environment
    guards: dict[IntExpr, tuple[Truths, ...]]
    found: list[Diagnostic] = field(default_factory=list)
    size: int = 0

    # --- maps

    def map(self, expr: ast.Expr) -> MapExpr:
        """The map that an expression is. Raises `PatternError`."""
        self.env.budget.charge(1, expr.span)
        made = self.map_inside(expr)
        self.grow(1, expr.span)
        return made

    def grow(self, by: int, span: Span) -> None:
        """Count nodes: a map that is named twice is written out twice."""
        self.size += by
        if self.size > EXPANSION:
            message = f"this map grows beyond {EXPANSION} operations"
            raise PatternError([Diagnostic("expansion", message, span)])

    def map_inside(self, expr: ast.Expr) -> MapExpr:
        match expr:
            case ast.Name(text=text) if text in self.env.lets:
                return self.named(text, expr.span)
            case ast.Name(text="scores"):
                return Logits(expr.span)
            case ast.Name(text="Q" | "K"):
                return Rows(Tokens(expr.text), expr.span)
            case ast.Name(text="scale"):
                return MapScale(expr.span)
            case ast.Qualified():
                return self.limited(expr)
            case ast.Product():
                return self.product(expr)
            case ast.Call() if self.is_mapped(expr):
                return self.call(expr)
            case ast.Negative() if self.is_mapped(expr):
                return MapCall(MapFunction.NEGATE, self.map(expr.operand), expr.span)
            case ast.Arithmetic() if self.is_mapped(expr):
                lhs, rhs = self.map(expr.lhs), self.map(expr.rhs)
                return self.joined(_OPS[expr.op], lhs, rhs, expr.span)
            case ast.Ratio() if self.is_mapped(expr):
                lhs, rhs = self.map(expr.lhs), self.map(expr.rhs)
                return self.joined(MapOp.DIV, lhs, rhs, expr.span)
        return self.number(expr)

    def named(self, name: str, span: Span) -> MapExpr:
        bound = self.env.lets[name]
        if not isinstance(bound, BoundMap):
            raise TypeError(f"not a map: {name}")
        self.grow(bound.size, span)
        return bound.map

    def is_mapped(self, expr: ast.Expr) -> bool:
        """Whether a map or the scale stands in an expression."""
        pending = [expr]
        while pending:
            node = pending.pop()
            match node:
                case ast.Name(text=text):
                    if text in self.env.lets or text in (*BASES, "scale"):
                        return True
                case ast.Call(name=ast.Name(text="count")) | ast.Product():
                    return True
                case ast.Qualified():
                    return True
                case ast.Call(name=ast.Name(text=text)) if text in (
                    "softmax",
                    "norm",
                    *REDUCTIONS[:2],
                    "entropy",
                ):
                    return True
            pending.extend(children(node))
        return False

    def number(self, expr: ast.Expr) -> MapExpr:
        """A number of the program, or an element of an input with the keys it has."""
        floats = Floats(self.env)
        value = floats.lower(expr).expr
        self.found.extend(floats.run.found)
        match value:
            case FloatConst(value=number):
                return MapNumber(number, expr.span)
            case FromInt(operand=operand):
                folded = fold_int(operand)
                if isinstance(folded, Const):
                    return MapNumber(float(folded.value), expr.span)
        keys = own_keys(value)
        self.check_keys(keys, expr.span)
        inside = float_through(value, keys)
        if inside is None:
            raise self.unknown_tokens(keys, expr.span)
        return MapValue(inside, keys, expr.span)

    def limited(self, expr: ast.Qualified) -> MapExpr:
        """`map where P for R`."""
        made = self.map(expr.operand)
        for condition in (expr.where, expr.rows):
            if condition is not None:
                held = self.condition(condition, keys_of(made))
                made = MapWhere(made, held, expr.span)
                self.grow(1, expr.span)
        return made

    def condition(self, expr: ast.Expr, keys: Keys) -> BoolExpr:
        """A pattern over the axes of a map with these keys. Raises `PatternError`."""
        run = Expansion()
        truths = run.truths(expr, self.env)
        self.found.extend(run.found)
        self.grow(truths.size, expr.span)
        found = truths_through(truths.expr, keys)
        if found is None:
            raise self.unknown_tokens(keys, expr.span)
        return found

    def product(self, expr: ast.Product) -> MapExpr:
        lhs, rhs = self.map(expr.lhs), self.map(expr.rhs)
        for side, written in ((lhs, expr.lhs), (rhs, expr.rhs)):
            if not has_channels(side):
                message = "`@` multiplies what is made from `Q` and from `K`"
                label = "this has one number for each key, and no channels"
                raise self.error("type", message, written.span, label)
        made = Product(lhs, rhs, expr.span)
        self.check_keys(keys_of(made), expr.span)
        return made

    def joined(self, op: MapOp, lhs: MapExpr, rhs: MapExpr, span: Span) -> MapExpr:
        """`lhs op rhs` over the keys of both: what one tells, the other may lack."""
        keys = joined_keys(keys_of(lhs), keys_of(rhs))
        self.check_keys(keys, span)
        sides = (self.at(lhs, keys, span), self.at(rhs, keys, span))
        return MapBinary(op, *sides, span)

    def at(self, map_: MapExpr, keys: Keys, span: Span) -> MapExpr:
        """A map over other keys, which tell its own."""
        own = keys_of(map_)
        if own in ((), keys):
            return map_
        places = [number_through(key, keys) for key in own]
        known = tuple(place for place in places if place is not None)
        if len(known) < len(places):
            raise self.unknown_tokens(keys, span)
        self.grow(1, span)
        made = MapAt(map_, known, keys, span)
        guards = [guard for key in own for guard in self.guards.get(key, ())]
        return self.guarded(made, guards, span)

    def call(self, call: ast.Call) -> MapExpr:
        name, span = call.name.text, call.span
        first = call.arguments[0]
        if name in REDUCTIONS and (
            name not in ("max", "min")
            or len(call.arguments) == 1
            or isinstance(first, ast.Qualified)
        ):
            return self.reduction(call)
        match name:
            case "softmax":
                return self.softmax(self.map(first), span)
            case "norm":
                operand = self.map(first)
                if not has_channels(operand):
                    message = "`norm` is the length of what is made from `Q` or `K`"
                    raise self.error("type", message, first.span)
                return Norm(operand, span)
            case "count":
                return self.count(first)
            case "clamp":
                x, lo, hi = (self.map(part) for part in call.arguments)
                least = self.joined(MapOp.MAX, x, lo, span)
                return self.joined(MapOp.MIN, least, hi, span)
            case "min" | "max":
                made = self.map(first)
                for part in call.arguments[1:]:
                    made = self.joined(MapOp(name), made, self.map(part), span)
                return made
        return MapCall(MapFunction(name), self.map(first), span)

    def softmax(self, operand: MapExpr, span: Span) -> MapExpr:
        if has_channels(operand):
            message = "`softmax` needs one number for each key"
            label = "this has channels"
            raise self.error("type", message, span, label)
        if not keys_of(operand):
            message = "`softmax` needs a map with keys"
            raise self.error("bad-key", message, span)
        return Softmax(operand, span)

    def count(self, expr: ast.Expr) -> MapExpr:
        selection = self.env.lets[expr.text] if isinstance(expr, ast.Name) else None
        if not isinstance(selection, Selection):
            raise TypeError(f"not a selection: {expr}")
        per = selection.per
        if selection.choice is Choice.ABOVE and keys_of(selection.amount):
            per = ()  # a test of two maps: each key is a scope of its own
        keys = tuple(selection.keys[place] for place in per)
        return Count(selection.table, keys, expr.span)

    def reduction(self, call: ast.Call) -> MapExpr:
        """`sum(map where P for R by e1, e2 over g)`."""
        first = call.arguments[0]
        written, over = written_keys(call)
        operand = self.map(first)
        how = Reduction(call.name.text)
        if how is Reduction.ENTROPY and has_channels(operand):
            message = "`entropy` needs one number for each key"
            raise self.error("type", message, call.span)
        numbers = [self.key(one) for expr in written for one in items_of(expr)]
        keys = tuple(fold_int(number.expr) for number in numbers)
        if not written and over is not None:
            keys = keys_of(operand)  # heads alone are put together
        self.check_keys(keys, call.span)
        operand = self.guarded(operand, terms.guards_of(*numbers), call.span)
        by = [number_through(key, keys_of(operand)) for key in keys]
        known = tuple(one for one in by if one is not None)
        if len(known) < len(by):
            raise self.unknown_tokens(keys_of(operand), call.span)
        shared = Sharing(over.text) if over is not None else Sharing.ALONE
        return Reduce(how, operand, known, keys, shared, call.span)

    def guarded(
        self, operand: MapExpr, guards: Sequence[Truths], span: Span
    ) -> MapExpr:
        """The entries for which all guards hold."""
        if not guards:
            return operand
        held = fold_bool(terms.all_of(guards, span).expr)
        condition = truths_through(held, keys_of(operand))
        if condition is None:
            raise self.unknown_tokens(keys_of(operand), span)
        return MapWhere(operand, condition, span)

    def key(self, expr: ast.Expr) -> Number:
        """A key that entries are put together by. Raises `PatternError`."""
        run = Expansion()
        number = run.number(expr, self.env)
        self.found.extend(run.found)
        self.grow(number.size, expr.span)
        self.guards[fold_int(number.expr)] = number.guards
        return number

    # --- limits and findings

    def check_keys(self, keys: Keys, span: Span) -> None:
        """At most three, and the same for every head."""
        if len(keys) > len(KEY_AXES):
            message = f"a map has at most {len(KEY_AXES)} keys, this has {len(keys)}"
            help_text = "sum over some of them first: `sum(map by e1, e2)`"
            raise self.error("bad-key", message, span, shown_keys(keys), help_text)
        for key in keys:
            if Axis.HEAD in axes_of(key):
                message = f"the key `{print_expr(key)}` differs from head to head"
                raise self.error(
                    "bad-key", message, span, "keys do not read `h` or `g`"
                )

    def unknown_tokens(self, keys: Keys, span: Span) -> PatternError:
        """The error for what the keys of a map do not tell."""
        message = "this reads a token that the map has put together with others"
        help_text = "use its keys, or group it later"
        return self.error("bad-key", message, span, shown_keys(keys), help_text)

    def error(
        self, code: str, message: str, span: Span, label: str = "", help_: str = ""
    ) -> PatternError:
        return PatternError(
            [*self.found, Diagnostic(code, message, span, label, help_)]
        )


def items_of(expr: ast.Expr) -> tuple[ast.Expr, ...]:
    return expr.items if isinstance(expr, ast.TupleOf) else (expr,)


def joined_keys(a: Keys, b: Keys) -> Keys:
    """The fewest keys that tell those of both."""
    if all(number_through(key, a) is not None for key in b):
        return a
    if all(number_through(key, b) is not None for key in a):
        return b
    return (*a, *(key for key in b if number_through(key, a) is None))


def shown_keys(keys: Keys) -> str:
    if not keys:
        return "the map has no keys"
    listed = ", ".join(f"`{print_expr(key)}`" for key in keys)
    return f"the map's keys: {listed}"
