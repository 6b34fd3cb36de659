"""Everything about a file that can be checked without parameter values.

In: a file. Out: diagnostics. Not its job: values, and what needs them (`check.lower`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from patternc.check.declarations import declaration_errors, recursion_errors
from patternc.check.inputs import input_errors, inputs_of
from patternc.check.kinds import Place, Type, parameter_types
from patternc.check.layout_names import LayoutNames, written_names
from patternc.check.layouts import layout_errors, sizes_of, valid_errors
from patternc.check.let_types import LetTyping
from patternc.check.lets import let_errors
from patternc.check.scope import RESERVED, Scope, did_you_mean, scope_of
from patternc.check.types import Typing
from patternc.diagnostics import Diagnostic, Label
from patternc.ir.nodes import CompareOp, WeightKind
from patternc.source import Span
from patternc.syntax import ast


def program_errors(file: ast.File) -> tuple[Diagnostic, ...]:
    """Errors and warnings of declarations, types and clauses, in no special order."""
    scope = scope_of(file)
    found = [*declaration_errors(file), *recursion_errors(scope)]
    for item in file.items:
        _check_item(item, scope, found)
    return tuple(found)


def _check_item(item: ast.Item, scope: Scope, found: list[Diagnostic]) -> None:
    """Types of defaults, body and clauses; mistakes go to `found`."""
    typing = _typing(item, scope, found)
    defaults = Typing(scope, {}, found)
    for parameter in item.parameters:
        if parameter.default is not None:
            _check_default(parameter, parameter.default, typing, defaults)
    match item:
        case ast.Pattern():
            typing.expect(item.body, Type.PATTERN)
        case ast.Function():
            typing.expect(item.body, Type.INTEGER)
        case ast.Layout():
            found.extend(layout_errors(item))
        case ast.Attention():
            found.extend(_clause_count_errors(item))
            found.extend(input_errors(item, scope))
            lets = LetTyping(typing)
            for clause in item.clauses:
                if isinstance(clause, ast.Let):
                    lets.declare(clause)
            found.extend(let_errors(item, lets.lets))
            masks = replace(typing, lets=lets.lets)
            for clause in item.clauses:
                is_mask = isinstance(clause, ast.Mask)
                _check_clause(clause, item, masks if is_mask else typing)
        case _:
            assert_never(item)


def _typing(item: ast.Item, scope: Scope, found: list[Diagnostic]) -> Typing:
    """What the expressions of an item may name; a pattern's layout is its user's."""
    layout: LayoutNames | None = None
    if isinstance(item, ast.Attention):
        layout = LayoutNames()
        for clause in item.clauses:
            if isinstance(clause, ast.UseLayout):
                written = scope.layouts.get(clause.name.text)
                layout = None if written is None else written_names(written)
    known = inputs_of(item)
    inputs = {name: known[name] for name in known if name not in RESERVED}
    return Typing(scope, parameter_types(item), found, inputs, layout)


def _check_default(
    parameter: ast.Parameter, default: ast.Expr, typing: Typing, defaults: Typing
) -> None:
    if typing.parameters[parameter.name.text] is Type.INTEGER:
        defaults.expect(default, Type.INTEGER)
        return
    if isinstance(default, ast.Negative):
        default = default.operand
    if defaults.type_of(default) is not Type.DECIMAL:
        defaults.expect(default, Type.INTEGER)  # an integer is a decimal number too


def _clause_count_errors(item: ast.Attention) -> Iterator[Diagnostic]:
    """An attention has one `heads`, at most one `layout` and `schedule`, and a `mask`."""
    heads = [clause for clause in item.clauses if isinstance(clause, ast.Heads)]
    if not heads:
        message = f"attention `{item.name.text}` has no `heads`"
        help_text = "say how many: `heads 32 kv 8`"
        yield Diagnostic("missing-clause", message, item.name.span, "", help_text)
    layouts = [clause for clause in item.clauses if isinstance(clause, ast.UseLayout)]
    schedules = [one for one in item.clauses if isinstance(one, ast.ScheduleBlock)]
    once = (("heads", heads), ("layout", layouts), ("schedule", schedules))
    for word, clauses in once:
        for again in clauses[1:]:
            message = f"`{word}` is given twice"
            others = (Label(clauses[0].span, "first given here"),)
            yield Diagnostic("duplicate-clause", message, again.span, others=others)
    if not any(isinstance(clause, ast.Mask) for clause in item.clauses):
        message = f"attention `{item.name.text}` has no `mask`"
        help_text = "write `mask full` if every query sees every key"
        yield Diagnostic("missing-clause", message, item.name.span, "", help_text)


def _check_clause(clause: ast.Clause, item: ast.Attention, typing: Typing) -> None:
    """Types of everything in a clause; mistakes go to the typing's findings."""
    if isinstance(clause, ast.Case | ast.Skip | ast.Assert) and clause.condition:
        replace(typing, lets={}).expect(clause.condition, Type.PATTERN)
    match clause:
        case ast.Heads():
            alone = replace(typing, inputs={})
            alone.expect(clause.count, Type.INTEGER)
            if clause.kv_count is not None:
                alone.expect(clause.kv_count, Type.INTEGER)
        case ast.Mask():
            typing.expect(clause.body, Type.PATTERN)
            if clause.or_dense and not typing.lets:
                message = "`else dense when cheaper` is for masks that read selections"
                typing.report("bad-mask", message, clause.span)
        case ast.UseLayout():
            _check_layout(clause.name, item, typing)
        case ast.Input():
            alone = replace(typing, inputs={})
            for axis in clause.axes:
                if axis != ast.Name("b"):
                    alone.expect(axis, Type.INTEGER)
        case ast.Order():
            if clause.kind.text in ("tile", "phase"):
                for argument in clause.arguments:
                    typing.expect(argument.value, Type.INTEGER)
        case ast.Score():
            replace(typing, place=Place.SCORE).expect(clause.body, Type.DECIMAL)
        case ast.Sink():
            replace(typing, place=Place.SINK).expect(clause.body, Type.DECIMAL)
        case ast.Output():
            replace(typing, place=Place.OUTPUT).expect(clause.body, Type.DECIMAL)
        case ast.Weights():
            _check_weights(clause, typing)
        case ast.Skip() | ast.Let():
            pass
        case ast.ScheduleBlock():
            alone = replace(typing, inputs={})
            for setting in clause.settings:
                alone.expect(setting.value, Type.INTEGER)
        case ast.Assert():
            _check_claim(clause.claim, typing)
        case _:
            assert_never(clause)


def _check_layout(name: ast.Name, item: ast.Attention, typing: Typing) -> None:
    """The layout that an attention uses: names in it are the attention's."""
    layout = typing.scope.layouts.get(name.text)
    if layout is None:
        message = f"`{name.text}` is not declared"
        help_text = did_you_mean(name.text, typing.scope.layouts)
        typing.report("unknown-name", message, name.span, "unknown layout", help_text)
        return
    alone = replace(typing, inputs={}, layout=LayoutNames())
    for segment in layout.segments:
        for argument in sizes_of(segment):
            alone.expect(argument.value, Type.INTEGER)
    typing.found.extend(valid_errors(layout, item))


def _check_weights(clause: ast.Weights, typing: Typing) -> None:
    kinds = [kind.value for kind in WeightKind]
    if clause.kind.text not in kinds:
        message = f"there are no weights `{clause.kind.text}`"
        shown = "there are `softmax`, `relu2(c)` and `sigmoid(b)`"
        help_text = did_you_mean(clause.kind.text, kinds) or shown
        typing.report("bad-weights", message, clause.kind.span, "", help_text)
    elif clause.kind.text == "softmax" and clause.argument is not None:
        message = "`softmax` takes no argument"
        help_text = "scale the logits: `score 0.5 * s`"
        typing.report("bad-weights", message, clause.argument.span, "", help_text)
    elif clause.kind.text == "relu2" and clause.argument is None:
        message = "`relu2` needs its factor"
        typing.report("bad-weights", message, clause.kind.span, "", "write `relu2(c)`")
    if clause.argument is not None:
        constants = replace(typing, inputs={}, place=Place.WEIGHTS)
        constants.expect(clause.argument, Type.DECIMAL)


def _check_claim(claim: ast.Claim, typing: Typing) -> None:
    match claim:
        case ast.SetClaim():
            _check_side(claim.lhs, typing)
            _check_side(claim.rhs, typing)
        case ast.BareClaim():
            sides = equated_sets(claim)
            if sides is None:
                _report_bare(claim.body, typing)
                return
            for side in sides:
                _check_side(side, typing)
        case ast.EveryRowClaim():
            if (claim.row.text, claim.item.text) != ("q", "k"):
                span = claim.row.span.to(claim.item.span)
                _report(typing, "unknown assert", span, "write `every q has k`")
        case ast.RetentionClaim():
            if claim.op not in (CompareOp.LT, CompareOp.LE):
                message = "retention is bounded from above"
                _report(typing, message, claim.op_span, "write `<=` or `<`")
            typing.expect(claim.bound, Type.INTEGER)
        case ast.DensityClaim():
            _check_density(claim, typing)
        case _:
            assert_never(claim)


def _check_density(claim: ast.DensityClaim, typing: Typing) -> None:
    if claim.op is CompareOp.NE:
        message = "density is not compared with `!=`"
        _report(typing, message, claim.op_span, "write `<`, `<=`, `==`, `>=` or `>`")
    if claim.index.text != "N":
        message = "a density is known at a length"
        _report(typing, message, claim.index.span, "write `at N = 4096`")
    if not isinstance(claim.bound, ast.Integer | ast.Decimal | ast.Name):
        message = "the bound of a density is one number"
        _report(typing, message, claim.bound.span, "write it as `0.07`")
    elif typing.type_of(claim.bound) not in (Type.DECIMAL, None):
        typing.expect(claim.bound, Type.INTEGER)
    typing.expect(claim.length, Type.INTEGER)


def equated_sets(claim: ast.BareClaim) -> tuple[ast.Expr, ast.Expr] | None:
    """The sides of `a == b`, for the checker to find that they are sets."""
    match claim.body:
        case ast.Chain(first=first, links=(ast.Link(op=CompareOp.EQ, operand=second),)):
            return first, second
    return None


def _check_side(side: ast.Expr, typing: Typing) -> None:
    if isinstance(side, ast.TheMask | ast.UnionOver):
        typing.type_of(side)
        return
    found = typing.type_of(side)
    if found not in (Type.PATTERN, None):
        message = f"an assert compares sets of pairs, not {found.value}"
        help_text = "each side is `mask`, `union over h` or a pattern"
        _report(typing, message, side.span, help_text)


def _report_bare(body: ast.Expr, typing: Typing) -> None:
    if isinstance(body, ast.Chain):
        message = "this compares no two sets of pairs"
        help_text = "write `assert SET == SET` or `assert SET within SET`"
    else:
        message = "an assert needs `within` or `==` between two sets of pairs"
        help_text = "`==` binds tighter than `&` and `|`: put both sides in parentheses"
    _report(typing, message, body.span, help_text)


def _report(typing: Typing, message: str, span: Span, help_text: str) -> None:
    typing.report("bad-assert", message, span, "", help_text)
