"""The numbers of a selection that are known before it: budgets, shares, probes.

In: the selections of an attention, the sizes of a call, its parameters. Out: nothing,
or a `ValueError` that says what is wrong. Not its job: numbers that depend on data,
which are cut to what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from patternc.backends.key_ranges import CallSizes, candidate_ranges, range_of
from patternc.backends.map_numbers import function_of, operation_of
from patternc.backends.probe import live_rows, probe_bounds
from patternc.backends.values import Integers, Place, numbers_at
from patternc.ir.evaluate import Point, evaluate_int
from patternc.ir.floats import inputs_of
from patternc.ir.nodes import Attention, Axis
from patternc.ir.selected import (
    maps_of,
    submaps,
)
from patternc.ir.selection import (
    Choice,
    MapBinary,
    MapCall,
    MapExpr,
    MapNumber,
    MapValue,
    MapWhere,
    Selection,
    keys_of,
)
from patternc.ir.text import print_expr


def check_amounts(
    attention: Attention, sizes: CallSizes, params: Mapping[str, int]
) -> None:
    """Hold every number that is known without data to what there is to choose from.

    Raises `ValueError` for a budget below 0, or above the number of keys of a scope or
    of the call, a share outside 0 to 1, a probe that starts before the first token or
    has no row. A call without queries or keys has nothing to choose, and passes.
    """
    if sizes.n_q <= 0 or sizes.n_k <= 0:
        return
    for selection in attention.selections:
        _check_probes(attention, selection, sizes, params)
        where = f"{attention.name}: `{selection.table}`"
        ranges = candidate_ranges(selection, sizes, params)
        scope = prod(
            own.size for place, own in enumerate(ranges) if place not in selection.per
        )
        most = min(scope, sizes.n_k)
        named = {"min": selection.least, "max": selection.most}
        if selection.choice is Choice.TOP:
            named["top"] = selection.amount
        for word, map_ in named.items():
            _check_budget(f"{where}: `{word}`", map_, attention, sizes, params, most)
        if selection.choice is Choice.TOP_P:
            number = known_number(selection.amount, attention, sizes.n_k, params)
            if number is not None and bool(((number < 0) | (number > 1)).any()):
                came = f"got {float(number.flatten()[0]):g}"
                raise ValueError(f"{where}: expected a share from 0 to 1, {came}")


def _check_budget(
    where: str,
    map_: MapExpr | None,
    attention: Attention,
    sizes: CallSizes,
    params: Mapping[str, int],
    most: int,
) -> None:
    number = None if map_ is None else known_number(map_, attention, sizes.n_k, params)
    if number is None:
        return
    wrong = ~((number >= 0) & (number < most + 1))
    if bool(wrong.any()):
        head = int(wrong[0].nonzero()[0][0])
        came = f"{float(number.expand(1, attention.heads)[0, head]):g}"
        advice = "a budget of all keys selects nothing; write `min(n, N)` if it may"
        if float(number.flatten()[0]) < 0:
            advice = "a budget counts keys"
        raise ValueError(f"{where}: expected 0 to {most} keys, got {came}: {advice}")


def known_number(
    map_: MapExpr, attention: Attention, n_k: int, params: Mapping[str, int]
) -> Tensor | None:
    """A number that reads no data, float64 [1, H] or [1, 1]; None for all others."""
    match map_:
        case MapNumber():
            return torch.full((1, 1), map_.value, dtype=torch.float64)
        case MapValue(keys=()) if not inputs_of(map_.value):
            heads = torch.arange(attention.heads)[None]
            batch = torch.zeros((1, 1), dtype=torch.int64)
            axes: dict[Axis, Integers] = {Axis.HEAD: heads, Axis.LENGTH: n_k}
            wide = {"": torch.zeros(1, dtype=torch.float64)}
            found = numbers_at(map_.value, Place(axes, params, wide, batch))
            if isinstance(found, Tensor):
                return found.double()
            return torch.full((1, 1), found, dtype=torch.float64)
        case MapCall():
            inner = known_number(map_.operand, attention, n_k, params)
            return None if inner is None else function_of(map_.function, inner)
        case MapBinary():
            lhs = known_number(map_.lhs, attention, n_k, params)
            rhs = known_number(map_.rhs, attention, n_k, params)
            if lhs is None or rhs is None:
                return None
            return operation_of(map_.op, lhs, rhs)
    return None


def _check_probes(
    attention: Attention,
    selection: Selection,
    sizes: CallSizes,
    params: Mapping[str, int],
) -> None:
    """Rows that an estimate is made from: the call must have them."""
    where = f"{attention.name}: `{selection.table}`"
    for whole in maps_of(selection):
        for node in submaps(whole):
            if not isinstance(node, MapWhere):
                continue
            for _, bound in probe_bounds(node):
                least = int(
                    evaluate_int(bound, Point({Axis.LENGTH: sizes.n_k}, params))
                )
                if least < 0:
                    raise ValueError(
                        f"{where}: its probe starts at query {least}, and a call of"
                        f" {sizes.n_k} keys has none below 0: write"
                        f" `max({print_expr(bound)}, 0)`"
                    )
            first = range_of(keys_of(node)[0], sizes, params) if keys_of(node) else None
            if first is None:
                continue
            start, stop = live_rows(node, first, sizes.n_k, params)
            if start >= stop:
                raise ValueError(
                    f"{where}: nothing to choose from: none of the {first.size} rows of"
                    " its map is among those that are estimated"
                )
