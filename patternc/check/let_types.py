"""Types of `let` clauses: maps, selections, and what stands in them.

In: the value of a `let`, and the typing of its attention. Out: whether it is a map or
a selection, with everything reported that is neither. Not its job: the keys of a map
(`check.maps`), which need the values of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from patternc.check.kinds import Place, Type
from patternc.check.types import Typing
from patternc.ir.nodes import CompareOp, Element, IntOp
from patternc.ir.selection import (
    MapFunction,
    Reduction,
)
from patternc.syntax import ast

REDUCTIONS = tuple(how.value for how in Reduction)
SELECTORS = ("top", "top_p", "above")
FUNCTIONS = tuple(
    function.value for function in MapFunction if function is not MapFunction.NEGATE
)
LET_CALLS = (*REDUCTIONS, *SELECTORS, "softmax", "norm", "count", "widened")
"""Functions that a `let` has and no other clause."""

BASES = ("scores", "Q", "K")
"""The maps that there are without a `let`."""

_NUMBERS = (Type.INTEGER, Type.DECIMAL)


@dataclass
class LetTyping:
    """Types of the lets of one attention, one after another, into `typing.lets`."""

    typing: Typing
    lets: dict[str, Type] = field(default_factory=dict)

    def declare(self, let: ast.Let) -> None:
        """Find the type of a `let`; later ones and masks know its name."""
        before = len(self.typing.found)
        found = self.type_of(let.value)
        if found in _NUMBERS:
            found = Type.MAP  # one number for each head, or for each key that it reads
        elif found not in (Type.MAP, Type.SELECTION, None):
            message = f"a `let` is a map or a selection, not {found.value}"
            is_pattern = found is Type.PATTERN
            help_text = "write `pattern name = ...` in the file" if is_pattern else ""
            self.report(message, let.value, help_text)
        if found is None or len(self.typing.found) > before:
            found = Type.UNKNOWN
        self.lets.setdefault(let.name.text, found)

    @property
    def inside(self) -> Typing:
        """The typing of numbers in a `let`, which knows the lets so far."""
        return replace(self.typing, lets=self.lets, place=Place.LET)

    @property
    def of_patterns(self) -> Typing:
        """The typing of conditions and keys in a `let`."""
        return replace(self.typing, lets=self.lets, place=Place.MASK)

    def type_of(self, expr: ast.Expr) -> Type | None:
        """MAP, SELECTION, a number's type, or None after a mistake."""
        match expr:
            case ast.Name():
                return self.type_of_name(expr)
            case ast.Call(name=ast.Name(text=text)) if text in LET_CALLS:
                return self.type_of_let_call(expr)
            case ast.Call(name=ast.Name(text=text)) if self.is_mapped(expr, text):
                return self.type_of_numbers(*expr.arguments)
            case ast.Call(name=ast.Name(text="clamp")) if self.holds_map(expr):
                return self.type_of_numbers(*expr.arguments)
            case ast.Product():
                self.expect_map(expr.lhs)
                self.expect_map(expr.rhs)
                return Type.MAP
            case ast.Qualified():
                return self.type_of_qualified(expr)
            case ast.Negative() if self.holds_map(expr):
                return self.type_of_numbers(expr.operand)
            case ast.Arithmetic() if self.holds_map(expr):
                return self.type_of_arithmetic(expr)
            case ast.Ratio():
                return self.type_of_numbers(expr.lhs, expr.rhs)
            case ast.Chain() if self.holds_map(expr):
                return self.type_of_test(expr)
            case ast.Indexed():
                return self.as_map(expr)
            case _:
                return self.inside.type_of(expr)

    def type_of_name(self, name: ast.Name) -> Type | None:
        if name.text in self.lets:
            found = self.lets[name.text]
            return None if found is Type.UNKNOWN else found
        if name.text in BASES:
            return Type.MAP
        if name.text == "scale":
            return Type.DECIMAL
        return self.as_map(name)

    def as_map(self, expr: ast.Expr) -> Type | None:
        """The type of a name or an element: an input of floats is a map."""
        found = self.inside.type_of(expr)
        is_input = found is Type.DECIMAL and self.holds_map(expr)
        return Type.MAP if is_input else found

    def is_mapped(self, call: ast.Call, name: str) -> bool:
        """Whether a call is a function of numbers that has maps for arguments."""
        return name in FUNCTIONS and self.holds_map(call)

    def holds_map(self, expr: ast.Expr) -> bool:
        """Whether a map, the scale or a floating input stands in an expression."""
        match expr:
            case ast.Name(text=text):
                if text in self.lets:
                    return self.lets[text] is not Type.SELECTION
                return text in (*BASES, "scale") or self.is_float_input(text)
            case ast.Indexed(target=ast.Name(text=text)):
                return self.is_float_input(text)
            case ast.Call(name=ast.Name(text=text), arguments=arguments):
                if text in ("softmax", "norm", "count", "sum", "mean", "entropy"):
                    return True
                return any(self.holds_map(part) for part in arguments)
            case ast.Product() | ast.Qualified():
                return True
            case ast.Negative(operand=operand):
                return self.holds_map(operand)
            case ast.Arithmetic(lhs=lhs, rhs=rhs) | ast.Ratio(lhs=lhs, rhs=rhs):
                return self.holds_map(lhs) or self.holds_map(rhs)
            case ast.Chain(first=first, links=links):
                parts = (first, *(link.operand for link in links if link.op))
                return any(self.holds_map(part) for part in parts)
        return False

    def is_float_input(self, name: str) -> bool:
        declared = self.typing.inputs.get(name)
        hidden = name in self.typing.parameters
        return not hidden and declared is not None and declared.element is Element.FLOAT

    def type_of_numbers(self, *parts: ast.Expr) -> Type | None:
        """A map if one of the parts is, for numbers and maps."""
        types = [self.type_of(part) for part in parts]
        for part, found in zip(parts, types, strict=True):
            if found not in (*_NUMBERS, Type.MAP, None):
                self.report(f"expected a map or a number, found {found.value}", part)
                return None
        if None in types:
            return None
        return Type.MAP if Type.MAP in types else Type.DECIMAL

    def type_of_arithmetic(self, expr: ast.Arithmetic) -> Type | None:
        if expr.op is IntOp.MOD:
            self.report("maps have no remainder", expr)
            return None
        return self.type_of_numbers(expr.lhs, expr.rhs)

    def type_of_test(self, chain: ast.Chain) -> Type | None:
        """`map < number`: the keys for which it holds."""
        (link, *more) = chain.links
        if more or link.op in (None, CompareOp.EQ, CompareOp.NE):
            message = "a map is compared once, with `<`, `<=`, `>` or `>=`"
            self.report(message, chain)
            return None
        parts = self.type_of_numbers(chain.first, link.operand)
        return None if parts is None else Type.SELECTION

    def type_of_qualified(self, expr: ast.Qualified, scoped: bool = False) -> Type:
        """`map where P for R`; `per` and `over` only where a selection is made."""
        self.expect_map(expr.operand)
        patterns = self.of_patterns
        for condition in (expr.where, expr.rows):
            if condition is not None:
                patterns.expect(condition, Type.PATTERN)
        if expr.by is not None:
            self.report(
                "`by` stands in `sum`, `mean`, `max`, `min`, `entropy`", expr.by
            )
        if not scoped:
            for part, word in ((expr.per, "per"), (expr.over, "over")):
                if part is not None:
                    message = f"`{word}` stands in `top`, `top_p` and `above`"
                    if word == "over":
                        message += ", and in reductions such as `sum`"
                    self.report(message, part)
        return Type.MAP

    def type_of_let_call(self, call: ast.Call) -> Type | None:
        name = call.name.text
        if name in SELECTORS:
            return self.type_of_selector(call)
        if name in ("min", "max") and not self.is_reduction(call):
            if not self.holds_map(call):
                return self.inside.type_of(call)
            return self.type_of_numbers(*call.arguments)
        if name in REDUCTIONS:
            return self.type_of_reduction(call)
        if name == "widened":
            return self.type_of_widened(call)
        if len(call.arguments) != 1:
            message = f"`{name}` takes 1 argument, {len(call.arguments)} given"
            self.typing.report("arity", message, call.span)
            return None
        if name == "count":
            return self.type_of_count(call.arguments[0])
        self.expect_map(call.arguments[0])
        return Type.MAP

    def is_reduction(self, call: ast.Call) -> bool:
        """Whether `min` or `max` is one over the entries of a map."""
        first = call.arguments[0] if call.arguments else None
        has_by = isinstance(first, ast.Qualified)
        return has_by or len(call.arguments) == 1

    def type_of_reduction(self, call: ast.Call) -> Type | None:
        """`sum(map where P by e1, e2 over g)`."""
        if not call.arguments:
            self.typing.report("arity", f"`{call.name.text}` needs a map", call.span)
            return None
        first = call.arguments[0]
        keys, over = written_keys(call)
        self.check_over(over)
        if isinstance(first, ast.Qualified):
            if first.per is not None:
                self.report("`per` stands in `top`, `top_p` and `above`", first.per)
            self.type_of_qualified(replace(first, by=None, per=None, over=None))
        else:
            self.expect_map(first)
            if keys:
                help_text = "write `sum(map by key)`"
                self.report("keys stand behind `by`", keys[0], help_text)
        for key in keys:
            self.expect_keys(key)
        return Type.MAP

    def expect_keys(self, expr: ast.Expr) -> None:
        """An integer, or several of them in brackets."""
        parts = expr.items if isinstance(expr, ast.TupleOf) else (expr,)
        for part in parts:
            self.of_patterns.expect(part, Type.INTEGER)

    def type_of_selector(self, call: ast.Call) -> Type | None:
        """`top(n, map per e, always P, min n, max n, over g)`."""
        name = call.name.text
        plain = [one for one in call.arguments if not isinstance(one, ast.Option)]
        if len(plain) != 2:
            message = f"`{name}` takes 2 arguments and options, {len(plain)} given"
            help_text = f"write `{name}(amount, map, always P, min n, max n)`"
            self.typing.report("arity", message, call.span, "", help_text)
            return None
        self.expect_number(plain[0])
        values = plain[1]
        over = None
        if isinstance(values, ast.Qualified):
            over = values.over
            if values.per is not None:
                self.expect_keys(values.per)
            self.check_over(over)
            self.type_of_qualified(values, scoped=True)
        else:
            self.expect_map(values)
        seen: dict[str, ast.Option] = {}
        for option in call.arguments:
            if isinstance(option, ast.Option):
                again = option.word in seen or (option.word == "over" and over)
                if again:
                    self.report(f"`{option.word}` is given twice", option)
                seen[option.word] = option
                self.check_option(option, name)
        return Type.SELECTION

    def check_option(self, option: ast.Option, selector: str) -> None:
        match option.word:
            case "always":
                self.of_patterns.expect(option.value, Type.PATTERN)
            case "min" | "max":
                self.expect_number(option.value)
            case "over":
                self.check_over(option.value)
            case _:
                if selector != "top_p":
                    self.report("`crossing` is an option of `top_p`", option)
                word = option.value
                if not isinstance(word, ast.Name) or word.text not in ("keep", "drop"):
                    message = "the crossing key is kept or dropped"
                    self.report(message, word, "write `crossing drop`")

    def check_over(self, over: ast.Expr | None) -> None:
        if over is None:
            return
        if not isinstance(over, ast.Name) or over.text not in ("h", "g"):
            message = "heads are put together `over h` or `over g`"
            help_text = "`over g`: the query heads of one key/value head"
            self.report(message, over, help_text)

    def expect_number(self, expr: ast.Expr) -> None:
        """An amount: a number or a map."""
        found = self.type_of(expr)
        if found not in (*_NUMBERS, Type.MAP, None):
            self.report(f"expected a number or a map, found {found.value}", expr)

    def expect_map(self, expr: ast.Expr) -> None:
        """A map; a floating number counts, as one that inputs give."""
        found = self.type_of(expr)
        if found not in (Type.MAP, Type.DECIMAL, None):
            help_text = "a map is made from `scores`, `Q`, `K` and inputs of `float`"
            self.report(f"expected a map, found {found.value}", expr, help_text)

    def type_of_count(self, expr: ast.Expr) -> Type | None:
        found = self.type_of_selection(expr, "`count` counts")
        return None if found is None else Type.MAP

    def type_of_widened(self, call: ast.Call) -> Type | None:
        """`widened(selection, n)`."""
        if len(call.arguments) != 2:
            message = f"`widened` takes 2 arguments, {len(call.arguments)} given"
            help_text = "write `widened(selection, n)`"
            self.typing.report("arity", message, call.span, "", help_text)
            return None
        self.of_patterns.expect(call.arguments[1], Type.INTEGER)
        return self.type_of_selection(call.arguments[0], "`widened` widens")

    def type_of_selection(self, expr: ast.Expr, verb: str) -> Type | None:
        found = self.type_of(expr)
        if found not in (Type.SELECTION, None) or not isinstance(expr, ast.Name):
            self.report(f"{verb} a selection that a `let` has named", expr)
            return None
        return found

    def report(self, message: str, expr: ast.Expr, help_text: str = "") -> None:
        self.typing.report("type", message, expr.span, "", help_text)


def written_keys(call: ast.Call) -> tuple[list[ast.Expr], ast.Name | None]:
    """The keys of a reduction and what it goes `over`: `sum(map by e1, e2 over g)`.

    What follows the last key was read as a part of that.
    """
    first, *keys = call.arguments
    over = None
    if isinstance(first, ast.Qualified):
        over = first.over
        if first.by is not None:
            keys.insert(0, first.by)
    last = keys[-1] if keys else None
    if isinstance(last, ast.Qualified) and over is None:
        over = last.over
        without = replace(last, over=None)
        if without == ast.Qualified(last.operand):
            keys[-1] = last.operand
    return keys, over
