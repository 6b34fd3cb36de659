"""Sinks and `output` clauses as formulas of a package.

In: floating expressions of rows. Out: `RowCase`s, whose formulas
`patternc.runtime.floats` computes as the `finish` of a generated module does. Not its
job: integers (`formulas`), that text (`finish`).
"""

from __future__ import annotations

import math
from typing import assert_never

from patternc.backends.triton.expr import folded
from patternc.backends.triton.features import Features
from patternc.backends.triton.floats import folded_float, held_number
from patternc.backends.triton.formulas import formula
from patternc.ir.nodes import (
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatRead,
    FloatSelect,
    FromInt,
    Given,
    GivenValue,
)
from patternc.runtime.data import RowCase
from patternc.runtime.formula import FloatFormula

FloatToken = int | float | str

_GIVEN = {Given.OUTPUT: "o", Given.VALUE: "own"}


def row_cases(features: Features) -> tuple[tuple[RowCase, ...], tuple[RowCase, ...]]:
    """The sinks and the outputs of a program."""
    sinks = tuple(RowCase(tuple(x.heads), _value(x.logit)) for x in features.sinks)
    outputs = (RowCase(tuple(x.heads), _value(x.output)) for x in features.outputs)
    return sinks, tuple(outputs)


def _value(expr: FloatExpr) -> FloatFormula:
    return FloatFormula(tuple(_tokens(folded_float(expr))))


def _tokens(expr: FloatExpr) -> list[FloatToken]:
    match expr:
        case FloatConst():
            number = held_number(expr.value)
            return [number if math.isfinite(number) else str(number)]
        case GivenValue():
            return [_GIVEN[expr.which]]
        case FromInt():
            return [*formula(folded(expr.operand)).tokens, "float"]
        case FloatRead():
            places = [
                x for index in expr.indices for x in formula(folded(index)).tokens
            ]
            return [*places, f"read {len(expr.indices)} {expr.table}"]
        case FloatBinary():
            return [*_tokens(expr.lhs), *_tokens(expr.rhs), expr.op.value]
        case FloatCall():
            is_negated = expr.function is FloatFunction.NEGATE
            word = "neg" if is_negated else expr.function.value
            return [*_tokens(expr.operand), word]
        case FloatSelect():
            condition = formula(folded(expr.condition)).tokens
            sides = [*_tokens(expr.then), *_tokens(expr.otherwise)]
            return [*condition, *sides, "select"]
        case _:
            assert_never(expr)
