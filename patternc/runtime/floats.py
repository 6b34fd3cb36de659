"""Sinks and `output` clauses of a package, as PyTorch computes them where autograd looks.

In: a floating formula of a manifest, what rows read. Out: its value, by the operations
that the `finish` of a generated module has. Not its job: which formulas are sound
(`kinds`), what is done with the value (`host`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .formula import READ, FloatFormula
from .tensors import BINARY, UNARY

FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    **UNARY,
    "neg": operator.neg,
    "exp": torch.exp,
    "log": torch.log,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sqrt": torch.sqrt,
    "relu": torch.relu,
    "sign": torch.sign,
}
"""Functions of one number, by their words in a manifest."""

_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    **BINARY,
    "/": operator.truediv,
}

_NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of a call are: what formulas read, but for the heads.

    `b` [B, 1, 1, 1] and `q` [n_q, 1] number batch elements and positions, `length` is
    n_k as a tensor; `inputs` have their batch axis first. Numbers are computed in `wide`.
    """

    b: Tensor
    q: Tensor
    length: Tensor
    values: Mapping[str, int]
    inputs: Mapping[str, Tensor]
    wide: torch.dtype


def row_value(
    host: Any,
    formula: FloatFormula,
    rows: Rows,
    h: Tensor,
    o: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:
    """The value for some heads `h` [heads, 1, 1], which spreads to [B, heads, n_q, D_v].

    `o` are their rows so far, `own` those of `v` at the queries.
    """
    device, wide = rows.q.device, rows.wide
    names: dict[str, Any] = {"q": rows.q, "h": h, "n_k": rows.length}
    names |= {"o": o, "own": own}
    for name, value in rows.values.items():
        names[f"p_{name}"] = torch.full((), value, device=device)

    def tensor(value: Any, dtype: torch.dtype) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(dtype)
        return torch.full((), value, dtype=dtype, device=device)

    stack: list[Any] = []
    for token in formula.tokens:
        if isinstance(token, int):
            stack.append(token)
        elif isinstance(token, float) or token in _NUMBERS:
            number = token if isinstance(token, float) else _NUMBERS[token]
            stack.append(tensor(number, wide))
        elif token in names:
            stack.append(names[token])
        elif token == "float":
            stack[-1] = tensor(stack[-1], wide)
        elif token == "select":
            otherwise, then = stack.pop(), stack.pop()
            stack[-1] = torch.where(tensor(stack[-1], torch.bool), then, otherwise)
        elif token in FUNCTIONS:
            stack[-1] = FUNCTIONS[token](stack[-1])
        elif token in _OPERATIONS:
            right = stack.pop()
            stack[-1] = _OPERATIONS[token](stack[-1], right)
        else:
            stack.append(_element(host, token, stack, rows))
    found: Tensor = stack[0]
    return found


def _element(host: Any, token: str, stack: list[Any], rows: Rows) -> Tensor:
    """The elements of an input; floating ones in the width of the numbers."""
    found = READ.fullmatch(token)
    assert found is not None, "a formula that was not checked"
    start = len(stack) - int(found[1])
    places = stack[start:]
    del stack[start:]
    read: Tensor = host.read(rows.inputs[found[2]], rows.b, *places)
    return read.to(rows.wide) if read.is_floating_point() else read
