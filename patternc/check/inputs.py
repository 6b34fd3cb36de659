"""Declared inputs: what is wrong with them, and the inputs of the IR.

In: the `input` clauses of an attention. Out: diagnostics and `ir.Input`s. Not its job:
reading them (`check.reads`), the tensors of a call (the backends).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from patternc.check.environment import Environment
from patternc.check.expand import Expansion
from patternc.check.reads import position_of
from patternc.check.scope import Scope
from patternc.diagnostics import Diagnostic, Label, PatternError, Severity
from patternc.ir.nodes import Axis, AxisKind, Const, Element, Input, InputAxis
from patternc.limits import POSITION
from patternc.syntax import ast
from patternc.syntax.measure import children, clause_expressions

_BATCH = ast.Name("b")
_NAMED = {"b": AxisKind.BATCH, "h": AxisKind.HEAD, "g": AxisKind.KV_HEAD}


def inputs_of(item: ast.Item) -> dict[str, ast.Input]:
    """The inputs of an attention by name; of two of a name the first counts."""
    found: dict[str, ast.Input] = {}
    if isinstance(item, ast.Attention):
        for clause in item.clauses:
            if isinstance(clause, ast.Input):
                found.setdefault(clause.name.text, clause)
    return found


def input_errors(item: ast.Attention, scope: Scope) -> Iterator[Diagnostic]:
    """Inputs given twice or never read, batch axes and `sorted` where they cannot be.

    Reserved names are `check.declarations`' business.
    """
    parameters = {parameter.name.text: parameter for parameter in item.parameters}
    first: dict[str, ast.Input] = {}
    read = _names_read(item, scope)
    for clause in item.clauses:
        if not isinstance(clause, ast.Input):
            continue
        name = clause.name
        before = first.setdefault(name.text, clause)
        place = parameters[name.text].span if name.text in parameters else None
        if before is not clause or place is not None:
            others = (Label(place or before.span, "first declared here"),)
            message = f"`{name.text}` is declared twice"
            yield Diagnostic("duplicate-name", message, name.span, "", "", others)
        yield from _shape_errors(clause)
        if name.text not in read:
            message = f"input `{name.text}` is never read"
            yield Diagnostic(
                "unread-input", message, name.span, severity=Severity.WARNING
            )


def _shape_errors(clause: ast.Input) -> Iterator[Diagnostic]:
    batch = [place for place, axis in enumerate(clause.axes) if axis == _BATCH]
    for place in batch:
        if place != 0:
            message = "the batch axis `b` comes first, once"
            yield Diagnostic("bad-input", message, clause.axes[place].span)
    if not clause.is_sorted:
        return
    if clause.element is not Element.INT or len(clause.axes) == len(batch):
        message = "`sorted` is a promise about integers along a last axis"
        yield Diagnostic("bad-input", message, clause.span)


def _names_read(item: ast.Attention, scope: Scope) -> set[str]:
    """Every name that stands in an expression of the attention or of its layouts."""
    pending: list[ast.Expr] = []
    for clause in item.clauses:
        if isinstance(clause, ast.UseLayout):
            layout = scope.layouts.get(clause.name.text)
            for segment in () if layout is None else layout.segments:
                pending.extend(argument.value for argument in segment.arguments)
        elif not isinstance(clause, ast.Input):
            pending.extend(clause_expressions(clause))
    found: set[str] = set()
    while pending:
        expr = pending.pop()
        if isinstance(expr, ast.Name):
            found.add(expr.text)
        pending.extend(children(expr))
    return found


def lower_inputs(
    clauses: Mapping[str, ast.Input], env: Environment, found: list[Diagnostic]
) -> dict[str, Input]:
    """The inputs with their axes; mistakes go to `found`."""
    result: dict[str, Input] = {}
    for name, clause in clauses.items():
        axes = [_axis(expr, env, found) for expr in clause.axes]
        known = tuple(axis for axis in axes if axis is not None)
        if len(known) == len(axes):
            result[name] = Input(
                name, clause.element, known, clause.is_sorted, clause.span
            )
    return result


def _axis(
    expr: ast.Expr, env: Environment, found: list[Diagnostic]
) -> InputAxis | None:
    """One axis as declared; None after a mistake."""
    if isinstance(expr, ast.Name) and expr.text in _NAMED:
        return InputAxis(_NAMED[expr.text])
    run = Expansion()
    try:
        number = run.number(expr, env)
    except PatternError as error:
        found.extend(error.diagnostics)
        return None
    if run.found:
        found.extend(run.found)
        return None
    at = position_of(number.expr)
    kinds = {Axis.QUERY: AxisKind.QUERY, Axis.KEY: AxisKind.KEY}
    # First of all: in a layout of 100 tokens `k // 128` is always 0, and yet no size.
    if at is not None and at.axis in kinds and at.shift >= 0:
        return InputAxis(kinds[at.axis], at.shift, at.divisor)
    if isinstance(number.expr, Const) or number.lo == number.hi:
        if 1 <= number.lo <= POSITION:
            return InputAxis(AxisKind.SIZE, size=number.lo)
        message = f"a size lies between 1 and {POSITION}, not {number.lo}"
        found.append(Diagnostic("bad-input", message, expr.span))
        return None
    message = f"`{expr.span.text}` is no axis of an input"
    label = "axes are `b`, `h`, `g`, positions such as `k` or `q // 128`, and sizes"
    help_text = "positions count up from 0: `(k - shift) // divisor`"
    found.append(Diagnostic("bad-input", message, expr.span, label, help_text))
    return None
