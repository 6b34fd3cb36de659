"""Types of expressions, without any parameter's value.

In: a file and its scope. Out: diagnostics for unknown names, wrong arity, wrong types,
names outside of their clause. What passes can be lowered without meeting any of them.
Not its job: values (`check.expand`, `check.floats`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from patternc.check.kinds import ARITY, ELEMENT_TYPES, HIDDEN, Place, Type
from patternc.check.layout_names import LayoutNames
from patternc.check.mistakes import Mistakes
from patternc.check.scope import (
    BUILT_IN,
    GIVEN,
    INDICES,
    RESERVED,
    TENSORS,
    Scope,
    did_you_mean,
)
from patternc.diagnostics import Diagnostic, Label
from patternc.ir.nodes import STEPS, IntOp
from patternc.limits import DIAGNOSTICS
from patternc.source import Span
from patternc.syntax import ast

_WHY_HIDDEN = {
    Place.MASK: "",
    Place.SCORE: "",
    Place.SINK: "a sink is one logit for each head",
    Place.WEIGHTS: "the argument of weights is a constant",
    Place.OUTPUT: "keys have been summed over",
    Place.LET: "",
}


@dataclass
class Typing(Mistakes):
    """The types of the expressions of one body; `found` collects what is wrong.

    `parameters`, `inputs` and `lets` are the body's own. `layout` is None where it is not known
    yet, as in a pattern. A wrong part has the type None, which fits everywhere: one
    mistake gives one message.
    """

    scope: Scope
    parameters: Mapping[str, Type]
    found: list[Diagnostic] = field(default_factory=list)
    inputs: Mapping[str, ast.Input] = field(default_factory=dict)
    layout: LayoutNames | None = None
    place: Place = Place.MASK
    lets: Mapping[str, Type] = field(default_factory=dict)

    def expect(self, expr: ast.Expr, wanted: Type) -> None:
        """Check `expr` and that it is of the type `wanted`."""
        found = self.type_of(expr)
        if found is None or found is wanted:
            return
        if wanted is Type.DECIMAL and found is Type.INTEGER:
            return
        self.report_mismatch(expr, wanted, found)

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
            case ast.Indexed():
                return self.type_of_indexed(expr)
            case ast.Coordinate():
                return self.type_of_coordinate(expr)
            case ast.Negative():
                return self.type_of_numbers(expr.operand)
            case ast.Complement():
                return self.all_of(Type.PATTERN, expr.operand)
            case ast.Arithmetic():
                return self.type_of_arithmetic(expr)
            case ast.Ratio():
                return self.type_of_ratio(expr)
            case ast.Union() | ast.Intersection():
                return self.all_of(Type.PATTERN, *expr.terms)
            case ast.Chain():
                return self.type_of_chain(expr)
            case ast.SetOf():
                self.all_of(Type.INTEGER, *expr.items)
                return Type.SET
            case ast.IfElse():
                parts = (expr.then, expr.condition, expr.otherwise)
                return self.all_of(Type.PATTERN, *parts)
            case ast.TupleOf():
                self.report_misplaced(expr, "keys in brackets", "to the left of `in`")
                return None
            case ast.Product():
                self.report_misplaced(expr, "`@`", "in a `let`")
                return None
            case ast.Qualified():
                self.report_misplaced(expr, "a map", "in a `let`")
                return None
            case ast.Option():
                self.report_misplaced(
                    expr, "an option", "in `top`, `top_p` and `above`"
                )
                return None
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

    def type_of_numbers(self, *parts: ast.Expr) -> Type | None:
        """What arithmetic gives: decimals once a part is one, where there are any."""
        if self.place is Place.MASK:
            return self.all_of(Type.INTEGER, *parts)
        types = [self.type_of(part) for part in parts]
        number = (Type.INTEGER, Type.DECIMAL, None)
        for part, found in zip(parts, types, strict=True):
            if found not in number:
                self.expect(part, Type.DECIMAL)  # reports it
        if Type.DECIMAL in types:
            return Type.DECIMAL
        return Type.INTEGER if set(types) <= {Type.INTEGER} else None

    def type_of_arithmetic(self, expr: ast.Arithmetic) -> Type | None:
        if expr.op in (IntOp.FLOORDIV, IntOp.MOD):
            return self.all_of(Type.INTEGER, expr.lhs, expr.rhs)
        return self.type_of_numbers(expr.lhs, expr.rhs)

    def type_of_ratio(self, expr: ast.Ratio) -> Type:
        if self.place is Place.MASK:
            self.type_of_numbers(expr.lhs, expr.rhs)
            message = "`/` divides decimal numbers; a mask has integers only"
            self.report("type", message, expr.span, "", "write `//` for floor division")
        else:
            self.all_of(Type.DECIMAL, expr.lhs, expr.rhs)
        return Type.DECIMAL if self.place is not Place.MASK else Type.INTEGER

    def type_of_chain(self, expr: ast.Chain) -> Type:
        if self.is_member(expr):
            first = expr.first
            items = first.items if isinstance(first, ast.TupleOf) else (first,)
            return self.all_of(Type.INTEGER, *items) and Type.PATTERN
        self.expect(expr.first, Type.INTEGER)
        for place, link in enumerate(expr.links):
            if link.op is not None:
                self.expect(link.operand, Type.INTEGER)
                continue
            self.check_group(link.operand)
            if place + 1 < len(expr.links):
                message = "a comparison cannot go on after `in`"
                help_text = "join two comparisons with `&`"
                self.report("type", message, link.operand.span, "", help_text)
                break
        return Type.PATTERN

    def is_member(self, expr: ast.Chain) -> bool:
        """Whether a chain is `keys in selection`."""
        link = expr.links[0]
        if link.op is not None or len(expr.links) > 1:
            return False
        group = link.operand
        if not isinstance(group, ast.Name) or group.text in self.parameters:
            return False
        return self.lets.get(group.text) in (Type.SELECTION, Type.UNKNOWN)

    def check_group(self, group: ast.Expr) -> None:
        """What stands after `in`: a set, a range or a segment of the layout."""
        if isinstance(group, ast.Name) and group.text not in self.parameters:
            if self.lets.get(group.text) is Type.MAP:
                message = f"`{group.text}` is a map: it holds numbers, not keys"
                help_text = f"choose among its keys: `top(8, {group.text})`"
                self.report("type", message, group.span, "", help_text)
                return
            if self.layout is not None:
                self.found.extend(self.layout.segment_errors(group, len(self.found)))
            return
        found = self.type_of(group)
        if found not in (Type.SET, Type.RANGE, None):
            message = f"expected a set or a range after `in`, found {found.value}"
            help_text = "write `in {0, 3}`, `in range(0, 4)` or `in text`, a segment"
            self.report("type", message, group.span, "", help_text)

    def type_of_coordinate(self, expr: ast.Coordinate) -> Type | None:
        if expr.token.text not in ("q", "k"):
            message = f"`{expr.token.text}` has no coordinates"
            help_text = "the query and the key have: `q.x`, `k.x`"
            self.report("unknown-axis", message, expr.token.span, "", help_text)
            return None
        if self.type_of_name(expr.token) is None:
            return None
        if self.layout is not None:
            self.found.extend(self.layout.axis_errors(expr.axis, len(self.found)))
        return Type.INTEGER

    def type_of_indexed(self, expr: ast.Indexed) -> Type | None:
        target = expr.target
        if isinstance(target, ast.Name) and target.text in self.inputs:
            declared = self.inputs[target.text]
            self.all_of(Type.INTEGER, *expr.indices)
            self.check_indices(target, declared, len(expr.indices), expr.span)
            return ELEMENT_TYPES[declared.element]
        found = self.type_of(target)
        self.all_of(Type.INTEGER, *expr.indices)
        if found is not Type.PATTERN:
            if found is not None:
                self.report_mismatch(target, Type.PATTERN, found)
            return None
        if len(expr.indices) != 2:
            count = len(expr.indices)
            message = f"a pattern is moved to 2 coordinates, {count} given"
            help_text = "write `p[e1, e2]`: `e1` is put for `q` and `e2` for `k`"
            self.report("arity", message, expr.span, "", help_text)
        return Type.PATTERN

    def check_indices(
        self, name: ast.Name, declared: ast.Input, count: int, at: Span
    ) -> None:
        """Report an index too many or too few of an input."""
        axes = [axis for axis in declared.axes if axis != ast.Name("b")]
        if count == len(axes):
            return
        plural = "index" if len(axes) == 1 else "indices"
        message = f"`{name.text}` is read with {len(axes)} {plural}, {count} given"
        shown = ", ".join(axis.span.text for axis in axes)
        help_text = f"write `{name.text}[{shown}]`" if axes else "it is read by name"
        others = (Label(declared.span, "declared here"),)
        self.found.append(Diagnostic("arity", message, at, "", help_text, others))

    def type_of_name(self, name: ast.Name) -> Type | None:
        text = name.text
        if text in self.parameters:
            return self.parameters[text]
        if text in self.inputs:
            self.check_indices(name, self.inputs[text], 0, name.span)
            return ELEMENT_TYPES[self.inputs[text].element]
        if text in self.lets:
            return self.type_of_let(name)
        if text in INDICES | {*STEPS}:
            return self.type_of_index(name)
        if text in ("full", "empty"):
            return Type.PATTERN
        if text in GIVEN or text == "b":
            return self.type_of_given(name)
        if text in TENSORS:
            return self.type_of_tensor(name)
        if text in BUILT_IN:
            message = f"`{text}` is a function and needs arguments"
            self.report("arity", message, name.span)
            return None
        declared = self.declared(name)
        if declared is None:
            return None
        self.check_count(name, declared, 0, name.span)
        return _result(declared)

    def type_of_let(self, name: ast.Name) -> Type | None:
        """A selection without keys is a pattern: it holds for a head or not."""
        match self.lets[name.text]:
            case Type.SELECTION:
                return Type.PATTERN
            case Type.MAP:
                return Type.MAP
        return None

    def type_of_tensor(self, name: ast.Name) -> Type | None:
        if name.text == "V":
            message = "`V` is not supported here yet"
            self.report("unsupported", message, name.span, "a reserved name")
        elif name.text == "scale" and self.place is Place.LET:
            return Type.DECIMAL
        else:
            message = f"`{name.text}` stands in `let` only"
            self.report("wrong-place", message, name.span)
        return None

    def type_of_index(self, name: ast.Name) -> Type | None:
        if name.text not in HIDDEN[self.place]:
            return Type.INTEGER
        message = f"there is no `{name.text}` in `{self.place.value}`"
        self.report("wrong-place", message, name.span, _WHY_HIDDEN[self.place])
        return None

    def type_of_given(self, name: ast.Name) -> Type | None:
        """`s` stands in `score`, `o` and `v` in `output`, `b` nowhere."""
        where = GIVEN.get(name.text, "the axes of an input")
        if where == self.place.value:
            return Type.DECIMAL
        shown = f"`{where}`" if name.text in GIVEN else where
        message = f"`{name.text}` stands in {shown} only"
        self.report("wrong-place", message, name.span)
        return None

    def type_of_call(self, call: ast.Call) -> Type | None:
        name, count = call.name, len(call.arguments)
        if name.text in ARITY:
            result = self.type_of_built_in(call)
            least, most = ARITY[name.text]
            if count < least or (most is not None and count > most):
                wanted = f"{least}" if most is not None else f"{least} or more"
                self.report_arity(name, wanted, count, call.span)
            return result
        self.all_of(Type.INTEGER, *call.arguments)
        own = self.parameters.keys() | self.inputs.keys() | self.lets.keys()
        if name.text in RESERVED | own:
            message = f"`{name.text}` cannot be called"
            self.report("type", message, name.span)
            return None
        declared = self.declared(name)
        if declared is None:
            return None
        self.check_count(name, declared, count, call.span)
        return _result(declared)

    def type_of_built_in(self, call: ast.Call) -> Type | None:
        match call.name.text:
            case "range":
                self.all_of(Type.INTEGER, *call.arguments)
                return Type.RANGE
            case "bitlen":
                return self.all_of(Type.INTEGER, *call.arguments)
            case "abs" | "min" | "max" | "clamp":
                return self.type_of_numbers(*call.arguments)
            case "where":
                self.all_of(Type.PATTERN, *call.arguments[:1])
                return self.all_of(Type.DECIMAL, *call.arguments[1:])
            case _:
                return self.all_of(Type.DECIMAL, *call.arguments)

    def declared(self, name: ast.Name) -> ast.Pattern | ast.Function | None:
        """The declaration of a name; unknown names are reported."""
        found = self.scope.find(name.text)
        if found is not None:
            return found[0]
        message = f"`{name.text}` is not declared"
        help_text = ""
        if len(self.found) < DIAGNOSTICS:
            own = [*self.parameters, *self.inputs, *self.lets]
            help_text = did_you_mean(name.text, [*self.scope.names(), *own, *BUILT_IN])
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


def _result(declared: ast.Pattern | ast.Function) -> Type:
    return Type.PATTERN if isinstance(declared, ast.Pattern) else Type.INTEGER
