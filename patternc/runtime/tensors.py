"""Formulas of a manifest over tensors.

In: a formula, and tensors or integers by name. Out: its value, as the text of a
generated module has it. Not its job: integers alone (`steps`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .formula import READ, Formula

Value = Tensor | int

Reader = Callable[[str, tuple[Value, ...]], Tensor]
"""The elements of an input at some places."""


def _no_reads(table: str, places: tuple[Value, ...]) -> Tensor:
    raise ValueError(f"no formula here reads `{table}`")


def tensor_value(
    formula: Formula, names: Mapping[str, Value], read: Reader = _no_reads
) -> Value:
    """Its value: a tensor, or an integer where none comes in (a truth value: a bool).

    Integers are int64. Raises `ValueError` for what is no formula.
    """
    stack: list[Any] = []
    try:
        for token in formula.tokens:
            if isinstance(token, int):
                stack.append(token)
            elif token in BINARY:
                right = stack.pop()
                stack[-1] = BINARY[token](stack[-1], right)
            elif token in UNARY:
                stack[-1] = UNARY[token](stack[-1])
            elif (found := READ.fullmatch(token)) is not None:
                start = len(stack) - int(found[1])
                places = tuple(stack[start:])
                del stack[start:]
                stack.append(read(found[2], places))
            else:
                stack.append(names[token])
        (value,) = stack
    except (IndexError, KeyError) as error:
        raise ValueError(f"not a formula of tensors: {error}") from None
    found_value: Value = value
    return found_value


def _least(x: Any, y: Any) -> Any:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.minimum(x, y)
    if isinstance(x, Tensor):
        return x.clamp(max=y)
    return y.clamp(max=x) if isinstance(y, Tensor) else min(x, y)


def _greatest(x: Any, y: Any) -> Any:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.maximum(x, y)
    if isinstance(x, Tensor):
        return x.clamp(min=y)
    return y.clamp(min=x) if isinstance(y, Tensor) else max(x, y)


def _truth(x: Any) -> Any:
    """An integer is a truth value here, not bits."""
    return x if isinstance(x, Tensor) else bool(x)


def _opposite(x: Any) -> Any:
    return ~x if isinstance(x, Tensor) else not x


UNARY: Mapping[str, Callable[[Any], Any]] = {"abs": abs, "not": _opposite}

BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "min": _least,
    "max": _greatest,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "and": lambda x, y: _truth(x) & _truth(y),
    "or": lambda x, y: _truth(x) | _truth(y),
}
