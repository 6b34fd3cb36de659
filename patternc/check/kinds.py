"""What an expression can be, and where it can stand.

In: nothing. Out: `Type`, `Place` and what the language's own names have of each. Not its
job: finding the type of an expression (`check.types`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from patternc.ir.nodes import Element
from patternc.syntax import ast


class Type(Enum):
    """What an expression is, as messages call it."""

    INTEGER = "an integer"
    DECIMAL = "a decimal number"
    PATTERN = "a pattern"
    SET = "a set of integers"
    RANGE = "a range"
    MASKS = "the attention's mask"
    MAP = "a map"
    SELECTION = "a selection"
    UNKNOWN = "a mistake"


class Place(Enum):
    """The clause that an expression stands in: it decides which names there are."""

    MASK = "mask"
    SCORE = "score"
    SINK = "sink"
    WEIGHTS = "weights"
    OUTPUT = "output"
    LET = "let"


ELEMENT_TYPES = {
    Element.INT: Type.INTEGER,
    Element.BOOL: Type.PATTERN,
    Element.FLOAT: Type.DECIMAL,
}
"""What an element of an input is, where it is read."""

HIDDEN: Mapping[Place, str] = {
    Place.MASK: "",
    Place.SCORE: "",
    Place.SINK: "qk",
    Place.WEIGHTS: "qkhgN",
    Place.OUTPUT: "k",
    Place.LET: "",
}
"""The indices that a clause does not have."""

ARITY: Mapping[str, tuple[int, int | None]] = {
    "abs": (1, 1),
    "bitlen": (1, 1),
    "min": (2, None),
    "max": (2, None),
    "clamp": (3, 3),
    "range": (2, 2),
    "exp": (1, 1),
    "log": (1, 1),
    "tanh": (1, 1),
    "sigmoid": (1, 1),
    "sqrt": (1, 1),
    "relu": (1, 1),
    "softcap": (2, 2),
    "where": (3, 3),
}
"""The least and the greatest number of arguments; None for any number."""


def parameter_types(item: ast.Item) -> dict[str, Type]:
    """The types of an item's parameters: integers unless typed, or by the default."""
    types = {}
    for parameter in item.parameters:
        decimal = is_decimal(parameter)
        types[parameter.name.text] = Type.DECIMAL if decimal else Type.INTEGER
    return types


def is_decimal(parameter: ast.Parameter) -> bool:
    """Whether a parameter is a decimal number, by its type or else its default."""
    default = parameter.default
    if isinstance(default, ast.Negative):
        default = default.operand
    by_default = parameter.kind is None and isinstance(default, ast.Decimal)
    return parameter.kind is ast.Kind.FLOAT or by_default
