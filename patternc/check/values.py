"""Values of an entry's parameters: given ones, defaults, and what is wrong with them.

In: an attention or pattern and the values a caller gives. Out: constants for static
parameters, `RuntimeParam`s for run-time ones, and diagnostics. Not its job: using them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from patternc.check import terms
from patternc.check.environment import Environment
from patternc.check.expand import Expansion
from patternc.check.kinds import Type, parameter_types
from patternc.check.scope import did_you_mean
from patternc.check.terms import Number
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import STEPS, Param, RuntimeParam
from patternc.ir.walk import subexpressions
from patternc.limits import INT_MAX, INT_MIN, POSITION
from patternc.syntax import ast


@dataclass(frozen=True, slots=True)
class Binding:
    """The parameters of one entry, bound."""

    integers: Mapping[str, Number]
    decimals: Mapping[str, Fraction]
    runtime: tuple[RuntimeParam, ...]
    steps: tuple[RuntimeParam, ...] = ()  # `layer` and `step`, in case they are read


def bind(
    item: ast.Attention | ast.Pattern,
    values: Mapping[str, int | float],
    env: Environment,
    found: list[Diagnostic],
) -> Binding:
    """Bind every parameter that can be bound; mistakes go to `found`.

    Defaults are evaluated in `env`, which binds nothing.
    """
    found.extend(_unknown(item, values))
    integers: dict[str, Number] = {}
    decimals: dict[str, Fraction] = {}
    runtime: list[RuntimeParam] = []
    kinds = parameter_types(item)
    for parameter in item.parameters:
        name, span = parameter.name.text, parameter.name.span
        if kinds[name] is Type.DECIMAL:
            decimal = _decimal(parameter, values, found)
            if decimal is not None:
                decimals[name] = decimal
            continue
        value = _integer(parameter, values, env, found)
        if parameter.runtime:
            if value is not None and abs(value) > POSITION:
                found.append(_wrong(parameter, f"beyond {POSITION} in size"))
                value = None
            runtime.append(RuntimeParam(name, value, span))
            integers[name] = Number(Param(name, span), -POSITION, POSITION)
        elif value is not None:
            integers[name] = terms.constant(value, span)
        elif name not in values and parameter.default is None:
            message = f"parameter `{name}` of `{item.name.text}` has no value"
            help_text = f"give it one, or a default: `{name} = 64`"
            found.append(Diagnostic("missing-value", message, span, "", help_text))
    steps = tuple(_step(name, item, values, found) for name in sorted(STEPS))
    return Binding(integers, decimals, tuple(runtime), steps)


def _step(
    name: str,
    item: ast.Attention | ast.Pattern,
    values: Mapping[str, int | float],
    found: list[Diagnostic],
) -> RuntimeParam:
    """The run-time integer `layer` or `step`: 0 unless a value is given."""
    value = values.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"the value of `{name}` is not an integer: {value!r}"
        found.append(Diagnostic("wrong-value", message, item.name.span))
        return RuntimeParam(name, 0, item.name.span)
    if not 0 <= value <= POSITION:
        message = f"the value of `{name}` lies between 0 and {POSITION}"
        found.append(Diagnostic("wrong-value", message, item.name.span))
    return RuntimeParam(name, value, item.name.span)


def _unknown(
    item: ast.Attention | ast.Pattern, values: Mapping[str, int | float]
) -> Iterator[Diagnostic]:
    known = [parameter.name.text for parameter in item.parameters]
    for name in values:
        if name not in known and name not in STEPS:
            message = f"`{item.name.text}` has no parameter `{name[:80]}`"
            help_text = did_you_mean(name, known)
            span = item.name.span
            yield Diagnostic("unknown-parameter", message, span, "", help_text)


def _integer(
    parameter: ast.Parameter,
    values: Mapping[str, int | float],
    env: Environment,
    found: list[Diagnostic],
) -> int | None:
    """The given value or the default; None if there is none or it is wrong."""
    name = parameter.name.text
    if name in values:
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int):
            found.append(_wrong(parameter, f"not an integer: {value!r}"))
            return None
        if not INT_MIN <= value <= INT_MAX:
            found.append(_wrong(parameter, "beyond 64 bits"))
            return None
        return value
    if parameter.default is None:
        return None
    return constant_of(parameter.default, env, found)


def _decimal(
    parameter: ast.Parameter,
    values: Mapping[str, int | float],
    found: list[Diagnostic],
) -> Fraction | None:
    name, default = parameter.name.text, parameter.default
    if name in values:
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            found.append(_wrong(parameter, f"not a number: {value!r}"))
            return None
        if not math.isfinite(value):
            found.append(_wrong(parameter, f"not finite: {value!r}"))
            return None
        return Fraction(repr(value))  # 0.07 is 7/100, as it is written
    match default:
        case ast.Decimal() | ast.Integer():
            return Fraction(default.value)
        case ast.Negative(operand=ast.Decimal(value=size) | ast.Integer(value=size)):
            return -Fraction(size)
        case None:
            message = f"parameter `{name}` has no value"
            span = parameter.name.span
            found.append(Diagnostic("missing-value", message, span))
        case _:
            message = "the default of a decimal parameter is one number"
            found.append(Diagnostic("bad-parameter", message, default.span))
    return None


def _wrong(parameter: ast.Parameter, why: str) -> Diagnostic:
    message = f"the value of `{parameter.name.text}` is {why}"
    return Diagnostic("wrong-value", message, parameter.name.span)


def constant_of(
    expr: ast.Expr, env: Environment, found: list[Diagnostic]
) -> int | None:
    """The value of an integer expression of constants; else reports and None."""
    run = Expansion()
    try:
        number = run.number(expr, env)
    except PatternError as error:
        found.extend(error.diagnostics)
        return None
    if run.found:
        found.extend(run.found)
        return None
    for node in subexpressions(number.expr):
        name = terms.varying_name(node)
        if name is not None:
            message = f"`{expr.span.text}` is not a constant"
            label = f"`{name}` is known only when a kernel runs"
            found.append(Diagnostic("not-constant", message, expr.span, label))
            return None
    return number.lo  # constants have exact bounds
