"""Formulas of a manifest: numbers and truth values in reverse Polish notation.

In: nothing. Out: `Formula`, `FloatFormula`, and the words that they are made of. Not its
job: values (`steps` of integers, `tensors` of tensors), the words of floating numbers
(`kinds`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNARY = ("abs", "not")
BINARY = (
    "+",
    "-",
    "*",
    "//",
    "%",
    "min",
    "max",
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "!=",
    "and",
    "or",
)

READ = re.compile(r"read ([0-8]) ([A-Za-z_]\w*)")
"""An element of an input: as many places as the number says, then its name."""

MOST_TOKENS = 10_000


def check(holds: bool, what: str) -> None:
    """Raises `ValueError`."""
    if not holds:
        raise ValueError(what)


@dataclass(frozen=True, slots=True)
class Formula:
    """An integer in reverse Polish notation; a truth value is 0 or 1.

    Words are the operations, the names that whoever asks knows ("qt", "h", "n_k", "q",
    "e_0" and the like, "p_..." for run-time parameters), and elements of inputs.
    """

    tokens: tuple[int | str, ...]

    def __post_init__(self) -> None:
        check(len(self.tokens) <= MOST_TOKENS, "a formula of more than 10000 tokens")


@dataclass(frozen=True, slots=True)
class FloatFormula:
    """A floating number in reverse Polish notation, made from integers too.

    A number with a decimal point is a floating one, and "nan", "inf" and "-inf" are. Its
    words beside those of `Formula` are those of `kinds`.
    """

    tokens: tuple[int | float | str, ...]

    def __post_init__(self) -> None:
        check(len(self.tokens) <= MOST_TOKENS, "a formula of more than 10000 tokens")
