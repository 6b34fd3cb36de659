"""Whether a floating formula is one.

In: a formula, the kind of each name and input. Out: nothing, or what is wrong. Not its
job: its value (`floats`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .data import InputFacts
from .formula import READ, FloatFormula

INT, BOOL, FLOAT = "int", "bool", "float"

OF_FLOATS = ("neg", "abs", "exp", "log", "tanh", "sigmoid", "sqrt", "relu", "sign")
"""Functions of one floating number."""

NUMBERS = ("nan", "inf", "-inf")

_SAME = ("+", "-", "*", "min", "max")
_COMPARED = ("<", "<=", ">", ">=", "==", "!=")


def check_float(
    formula: FloatFormula, names: Mapping[str, str], inputs: Mapping[str, InputFacts]
) -> None:
    """Take the kinds of its parts in place of values. Raises `ValueError`.

    `names` has the kind of each name. An integer is a truth value where one is asked for,
    and truth values are compared as integers.
    """
    stack: list[str] = []
    for token in formula.tokens:
        if isinstance(token, str):
            stack.append(_kind(token, stack, names, inputs))
        else:
            stack.append(INT if isinstance(token, int) else FLOAT)
    if stack != [FLOAT]:
        raise ValueError("not a formula of one floating number")


def _kind(
    word: str,
    stack: list[str],
    names: Mapping[str, str],
    inputs: Mapping[str, InputFacts],
) -> str:
    """What a word makes of the last kinds, which it takes."""
    if word in NUMBERS:
        return FLOAT
    if word in names:
        return names[word]
    found = READ.fullmatch(word)
    if found is not None:
        return _element(int(found[1]), found[2], stack, inputs)
    if word == "select":
        _take(stack, word, (BOOL, FLOAT, FLOAT))
        return FLOAT
    if word == "float":
        _take(stack, word, (INT,))
        return FLOAT
    if word == "not":
        _take(stack, word, (BOOL,))
        return BOOL
    if word in ("and", "or"):
        _take(stack, word, (BOOL, BOOL))
        return BOOL
    last = stack[-1] if stack else INT
    if word in OF_FLOATS and (last == FLOAT or word == "abs"):
        _take(stack, word, (last if last == FLOAT else INT,))
        return last
    if word in (*_SAME, "/") and last == FLOAT:
        _take(stack, word, (FLOAT, FLOAT))
        return FLOAT
    if word in (*_SAME, "//", "%", *_COMPARED):
        _take(stack, word, (INT, INT))
        return BOOL if word in _COMPARED else INT
    raise ValueError(f"no word of a floating formula: {word!r}")


def _element(
    count: int, table: str, stack: list[str], inputs: Mapping[str, InputFacts]
) -> str:
    if table not in inputs:
        raise ValueError(f"a formula reads `{table}`, which is no input")
    item = inputs[table]
    if count != sum(axis.kind != "b" for axis in item.axes):
        raise ValueError(f"a formula reads `{table}` at {count} places")
    _take(stack, f"read of `{table}`", (INT,) * count)
    return item.element


def _take(stack: list[str], word: str, wanted: Sequence[str]) -> None:
    """Take kinds off the stack. Raises `ValueError` where others are there."""
    start = len(stack) - len(wanted)
    if start < 0:
        raise ValueError(f"`{word}` of too few numbers")
    for found, kind in zip(stack[start:], wanted, strict=True):
        is_truth = {found, kind} == {BOOL, INT} and (kind == BOOL or word in _COMPARED)
        if found != kind and not is_truth:
            raise ValueError(f"`{word}` of {found}, not of {kind}")
    del stack[start:]
