"""Which tiles a mask that reads inputs may see, from formulas of a package.

In: a judge of a manifest, the tokens of tiles, the inputs of a call. Out: the function
that the list builder asks, as the `judge_...` of a generated module. Not its job: the
method and its arithmetic of bounds (`host`, from `profile.py.tmpl`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .data import Judge
from .formula import READ, Formula
from .tensors import Value, tensor_value

Bounds = tuple[Tensor, ...]
"""Of an integer: least, greatest, step; of a truth value: may hold, may fail."""

_FUNCTIONS = {
    "+": ("sum_of", False),
    "-": ("difference_of", False),
    "*": ("product_of", False),
    "//": ("quotient_of", False),
    "%": ("remainder_of", False),
    "min": ("least_of", False),
    "max": ("greatest_of", False),
    "<": ("less", False),
    "<=": ("at_most", False),
    ">": ("less", True),
    ">=": ("at_most", True),
    "==": ("equal", False),
    "!=": ("unequal", False),
    "and": ("all_of", False),
    "or": ("any_of", False),
}
"""The function of bounds, and whether its arguments change places."""

_OF_ONE = {"abs": "absolute_of", "not": "opposite"}


def judge_of(
    host: Any,
    own: Judge,
    by_tile: bool,
    q: Tensor,
    k: Tensor,
    b: Tensor,
    heads: Tensor,
    length: int,
    values: Mapping[str, int],
    tables: Mapping[str, Tensor],
) -> Callable[[int, Tensor, Tensor, Tensor], Bounds]:
    """What says whether the mask may be true, and may be false, for pairs of nodes.

    `by_tile`: all pairs of tiles are judged, no nodes. `q` and `k` are the tokens of tiles, [1, tiles, block], `b` and `heads` the elements.
    """
    params: dict[str, Value] = {f"p_{name}": value for name, value in values.items()}
    names: dict[str, Value] = {"n_k": length, **params}
    pyramids = []
    for table in own.tables:
        flat = {**names, "h": heads}
        places = [
            None if x is None else tensor_value(x, flat, _reader(host, tables, b))
            for x in table.places
        ]
        pyramids.append(host.pyramid(tables[table.table], b, places))
    element = _reader(host, tables, b[:, None, None])
    names["h"] = heads[:, None, None]
    cells = []
    for cell in own.cells:
        sides = {**names, "q": q, "k": k}
        at = [tensor_value(place, sides, element) for place in cell.places]
        given = zip(cell.sides, at, strict=True)
        cells.append(host.cells(tables[cell.table], b, *given))
    profiles = []
    for part in own.parts:
        side = {"q": q} if part.of_queries else {"k": k}
        value: Any = tensor_value(part.value, {**names, **side}, element)
        value = value.to(heads.dtype)
        levels = [host.of_tiles(value, own.by_step)] if by_tile else None
        profiles.append(levels or host.profile(value, own.by_step))

    def judge(level: int, e: Tensor, q: Tensor, k: Tensor) -> Bounds:
        known = {name: host.exactly(value) for name, value in params.items()}
        known |= {"h": host.exactly(heads[e]), "n_k": host.exactly(length)}
        known |= {"true": host.always(True), "false": host.always(False)}
        known |= {f"cell_{at}": bounds for at, bounds in enumerate(cells)}
        for at, (part, profile) in enumerate(zip(own.parts, profiles, strict=True)):
            bounds = host.known(profile, level, e, q if part.of_queries else k)
            known[f"part_{at}"] = host.truth_of(bounds) if part.is_truth else bounds
        return _bounds(host, own.seen, known, pyramids, e)

    return judge


def _reader(
    host: Any, tables: Mapping[str, Tensor], b: Tensor
) -> Callable[[str, tuple[Value, ...]], Tensor]:
    def element(table: str, places: tuple[Value, ...]) -> Tensor:
        found: Tensor = host.read(tables[table], b, *places)
        return found

    return element


def _bounds(
    host: Any,
    formula: Formula,
    names: Mapping[str, Bounds],
    pyramids: list[Any],
    e: Tensor,
) -> Bounds:
    """The value of a formula of bounds."""
    stack: list[Bounds] = []
    for token in formula.tokens:
        if isinstance(token, int):
            stack.append(host.exactly(token))
        elif token in _FUNCTIONS:
            name, swaps = _FUNCTIONS[token]
            right, left = stack.pop(), stack.pop()
            sides = (right, left) if swaps else (left, right)
            stack.append(getattr(host, name)(*sides))
        elif token in _OF_ONE:
            stack.append(getattr(host, _OF_ONE[token])(stack.pop()))
        elif (found := READ.fullmatch(token)) is not None:
            start = len(stack) - int(found[1])
            boxes = stack[start:]
            del stack[start:]
            pyramid = pyramids[int(found[2].removeprefix("table_"))]
            stack.append(host.look_up(pyramid, e, *boxes))
        else:
            stack.append(names[token])
    (value,) = stack
    return value
