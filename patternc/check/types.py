"""Types of expressions, without any parameter's value.

In: a file and its scope. Out: diagnostics for unknown names, wrong arity, wrong types.
What passes can be lowered without meeting any of them. Not its job: values
(`check.expand`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from patternc.check.scope import BUILT_IN, INDICES, LATER_NAMES, Scope, did_you_mean
from patternc.diagnostics import Diagnostic, Label
from patternc.limits import DIAGNOSTICS
from patternc.source import Span
from patternc.syntax import ast


class Type(Enum):
    """What an expression is, as messages call it."""

    INTEGER = "an integer"
    DECIMAL = "a decimal number"
    PATTERN = "a pattern"
    SET = "a set of integers"
    RANGE = "a range"
    MASKS = "the attention's mask"


# The least and the greatest number of arguments; None for any number.
_ARITY: Mapping[str, tuple[int, int | None]] = {
    "abs": (1, 1),
    "min": (2, None),
    "max": (2, None),
    "clamp": (3, 3),
    "range": (2, 2),
}


@dataclass
class Typing:
    """The types of the expressions of one body; `found` collects what is wrong.

    `parameters` are the body's own. A wrong part has the type None, which fits
    everywhere: one mistake gives one message.
    """

    scope: Scope
    parameters: Mapping[str, Type]
    found: list[Diagnostic] = field(default_factory=list)

    def expect(self, expr: ast.Expr, wanted: Type) -> None:
        """Check `expr` and that it is of the type `wanted`."""
        found = self.type_of(expr)
        if found is None or found is wanted:
            return
        if found is Type.MASKS:
            self.report(
                "bad-assert",
                f"{found.value} cannot be a part of an expression",
                expr.span,
                "it stands alone on one side of `within` or `==`",
                "put the other side of `==` in parentheses",
            )
            return
        message = f"expected {wanted.value}, found {found.value}"
        self.report("type", message, expr.span, *_hint(wanted, found))

    def type_of(self, expr: ast.Expr) -> Type | None:
        """The type of `expr`; None after a mistake that was reported."""
        match expr:
            case ast.Integer():
                return Type.INTEGER
            case ast.Decimal():
                return Type.DECIMAL
            case ast.Name():
                return self.type_of_name(expr)
            case ast.Call():
                return self.type_of_call(expr)
            case ast.Moved():
                self.expect(expr.target, Type.PATTERN)
                self.expect(expr.query, Type.INTEGER)
                self.expect(expr.key, Type.INTEGER)
                return Type.PATTERN
            case ast.Negative():
                return self.all_of(Type.INTEGER, expr.operand)
            case ast.Complement():
                return self.all_of(Type.PATTERN, expr.operand)
            case ast.Arithmetic():
                return self.all_of(Type.INTEGER, expr.lhs, expr.rhs)
            case ast.Union() | ast.Intersection():
                return self.all_of(Type.PATTERN, *expr.terms)
            case ast.Chain():
                return self.type_of_chain(expr)
            case ast.SetOf():
                self.all_of(Type.INTEGER, *expr.items)
                return Type.SET
            case ast.TheMask():
                return Type.MASKS
            case ast.UnionOver():
                if expr.index.text not in ("h", "g"):
                    message = "masks are united over the heads: `union over h`"
                    self.report("bad-assert", message, expr.index.span)
                return Type.MASKS
            case _:
                assert_never(expr)

    def all_of(self, wanted: Type, *parts: ast.Expr) -> Type:
        """Check that every part has the type `wanted`, and return it."""
        for part in parts:
            self.expect(part, wanted)
        return wanted

    def type_of_chain(self, expr: ast.Chain) -> Type:
        self.expect(expr.first, Type.INTEGER)
        for place, link in enumerate(expr.links):
            if link.op is not None:
                self.expect(link.operand, Type.INTEGER)
                continue
            found = self.type_of(link.operand)
            if found not in (Type.SET, Type.RANGE, None):
                message = f"expected a set or a range after `in`, found {found.value}"
                help_text = "write `in {0, 3}` or `in range(0, 4)`"
                self.report("type", message, link.operand.span, "", help_text)
            elif place + 1 < len(expr.links):
                message = "a comparison cannot go on after `in`"
                help_text = "join two comparisons with `&`"
                self.report("type", message, link.operand.span, "", help_text)
                break
        return Type.PATTERN

    def type_of_name(self, name: ast.Name) -> Type | None:
        text = name.text
        if text in self.parameters:
            return self.parameters[text]
        if text in INDICES:
            return Type.INTEGER
        if text in ("full", "empty"):
            return Type.PATTERN
        if text in LATER_NAMES:
            message = f"`{text}` is not supported here yet"
            self.report("unsupported", message, name.span, "a reserved name")
            return None
        if text in BUILT_IN:
            message = f"`{text}` is a function and needs arguments"
            self.report("arity", message, name.span)
            return None
        declared = self.declared(name)
        if declared is None:
            return None
        self.check_count(name, declared, 0, name.span)
        return _result(declared)

    def type_of_call(self, call: ast.Call) -> Type | None:
        name, count = call.name, len(call.arguments)
        if name.text in _ARITY:
            self.all_of(Type.INTEGER, *call.arguments)
            least, most = _ARITY[name.text]
            if count < least or (most is not None and count > most):
                wanted = f"{least}" if most is not None else f"{least} or more"
                self.report_arity(name, wanted, count, call.span)
            return Type.RANGE if name.text == "range" else Type.INTEGER
        self.all_of(Type.INTEGER, *call.arguments)
        no_call = name.text in INDICES | LATER_NAMES | BUILT_IN
        if no_call or name.text in self.parameters:
            message = f"`{name.text}` cannot be called"
            self.report("type", message, name.span)
            return None
        declared = self.declared(name)
        if declared is None:
            return None
        self.check_count(name, declared, count, call.span)
        return _result(declared)

    def declared(self, name: ast.Name) -> ast.Pattern | ast.Function | None:
        """The declaration of a name; unknown names are reported."""
        found = self.scope.find(name.text)
        if found is not None:
            return found[0]
        message = f"`{name.text}` is not declared"
        help_text = ""
        if len(self.found) < DIAGNOSTICS:
            known = [*self.scope.names(), *self.parameters, *BUILT_IN]
            help_text = did_you_mean(name.text, known)
        self.report("unknown-name", message, name.span, "unknown name", help_text)
        return None

    def check_count(
        self, name: ast.Name, declared: ast.Pattern | ast.Function, count: int, at: Span
    ) -> None:
        """Report an argument too many or too few."""
        most = len(declared.parameters)
        least = sum(p.default is None for p in declared.parameters)
        if least <= count <= most:
            return
        wanted = f"{least}" if least == most else f"{least} to {most}"
        label = Label(declared.name.span, "declared here")
        self.report_arity(name, wanted, count, at, (label,))

    def report_arity(
        self,
        name: ast.Name,
        wanted: str,
        count: int,
        at: Span,
        others: tuple[Label, ...] = (),
    ) -> None:
        plural = "argument" if wanted == "1" else "arguments"
        message = f"`{name.text}` takes {wanted} {plural}, {count} given"
        self.found.append(Diagnostic("arity", message, at, others=others))

    def report(
        self, code: str, message: str, span: Span, label: str = "", help_: str = ""
    ) -> None:
        self.found.append(Diagnostic(code, message, span, label, help_))


def _result(declared: ast.Pattern | ast.Function) -> Type:
    return Type.PATTERN if isinstance(declared, ast.Pattern) else Type.INTEGER


def _hint(wanted: Type, found: Type) -> tuple[str, str]:
    """A label and a help sentence for the commonest mistakes."""
    if wanted is Type.PATTERN and found is Type.INTEGER:
        return "a number, not a set of pairs", "compare it with something: `... == 0`"
    if wanted is Type.INTEGER and found is Type.PATTERN:
        return "a set of pairs, not a number", "combine patterns with `&`, `|` and `~`"
    if found in (Type.SET, Type.RANGE):
        return "", "a set or range stands to the right of `in`"
    if found is Type.DECIMAL:
        return "", "decimal numbers are for `assert density` only"
    return "", ""


def parameter_types(item: ast.Item) -> dict[str, Type]:
    """The types of an item's parameters: integers unless typed, or by the default."""
    types = {}
    for parameter in item.parameters:
        is_float = parameter.kind is ast.Kind.FLOAT or (
            parameter.kind is None and isinstance(parameter.default, ast.Decimal)
        )
        types[parameter.name.text] = Type.DECIMAL if is_float else Type.INTEGER
    return types
