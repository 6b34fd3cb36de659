"""Traversal of maps and selections.

In: a map, a selection, an attention. Out: the maps in it, the expressions in them, the
inputs and parameters that they read. Not its job: what a map means (`backends.maps`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from patternc.ir.floats import discrete_parts, inputs_of
from patternc.ir.nodes import Attention, BoolExpr, FloatExpr, IntExpr
from patternc.ir.selection import (
    Count,
    Logits,
    MapAt,
    MapBinary,
    MapCall,
    MapExpr,
    MapNumber,
    MapScale,
    MapValue,
    MapWhere,
    Norm,
    Product,
    Reduce,
    Rows,
    Selection,
    Softmax,
)
from patternc.ir.walk import params_of, tables_of


def map_children(map_: MapExpr) -> tuple[MapExpr, ...]:
    """The maps that a map is made from, left to right."""
    match map_:
        case Rows() | Logits() | MapNumber() | MapScale() | MapValue() | Count():
            return ()
        case MapAt() | MapCall() | MapWhere() | Softmax() | Reduce() | Norm():
            return (map_.operand,)
        case MapBinary() | Product():
            return (map_.lhs, map_.rhs)
        case _:
            assert_never(map_)


def submaps(map_: MapExpr) -> Iterator[MapExpr]:
    """Every map in a map, parents first; one that is used twice comes twice."""
    pending = [map_]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(map_children(node)))


def maps_of(selection: Selection) -> tuple[MapExpr, ...]:
    """The maps of a selection: what is ranked, and its numbers."""
    parts = (selection.values, selection.amount, selection.least, selection.most)
    return tuple(part for part in parts if part is not None)


def selection_parts(
    selection: Selection,
) -> Iterator[IntExpr | BoolExpr | FloatExpr]:
    """The expressions in a selection: keys, places, conditions, numbers."""
    if selection.always is not None:
        yield selection.always
    for whole in maps_of(selection):
        for node in submaps(whole):
            match node:
                case MapWhere():
                    yield node.condition
                case MapValue():
                    yield node.value
                    yield from node.keys
                case MapAt():
                    yield from (*node.places, *node.keys)
                case Reduce():
                    yield from (*node.by, *node.keys)
                case Count():
                    yield from node.keys
                case Rows() | Logits() | MapNumber() | MapScale() | MapBinary():
                    pass
                case MapCall() | Softmax() | Product() | Norm():
                    pass
                case _:
                    assert_never(node)


def read_by(selection: Selection) -> frozenset[str]:
    """The inputs and the tables of other selections that a selection reads."""
    found: set[str] = set()
    for part in selection_parts(selection):
        if isinstance(part, IntExpr | BoolExpr):
            found |= tables_of(part)
        else:
            found |= inputs_of(part)
    for whole in maps_of(selection):
        found |= {n.selection for n in submaps(whole) if isinstance(n, Count)}
    return frozenset(found)


def placed_params(attention: Attention) -> frozenset[str]:
    """The parameters that a plan gives: no caller does."""
    return frozenset(
        name
        for selection in attention.selections
        for place in range(len(selection.keys))
        for name in (selection.first(place), selection.size(place))
        if name
    )


def dense_alternative(attention: Attention) -> Attention | None:
    """The attention that may be computed instead where that is cheaper, if it allows it.

    It selects nothing, and asserts nothing: that was decided for both.
    """
    if not attention.dense_cases:
        return None
    chosen = {selection.table for selection in attention.selections}
    placed = placed_params(attention)
    read = {table for case in attention.dense_cases for table in tables_of(case.mask)}
    if read & chosen:  # another case has to choose
        return None
    return replace(
        attention,
        cases=attention.dense_cases,
        inputs=tuple(one for one in attention.inputs if one.name not in chosen),
        params=tuple(one for one in attention.params if one.name not in placed),
        selections=(),
        dense_cases=(),
        asserts=(),
    )


def chosen_params(attention: Attention) -> tuple[str, ...]:
    """The run-time parameters of callers that selections read, in order."""
    read: set[str] = set()
    for selection in attention.selections:
        for part in selection_parts(selection):
            if isinstance(part, IntExpr | BoolExpr):
                read |= params_of(part)
            else:
                read = read.union(*(params_of(one) for one in discrete_parts(part)))
    if read_logits(attention):
        for case in attention.scores:
            read = read.union(*(params_of(one) for one in discrete_parts(case.score)))
    placed = placed_params(attention)
    names = [param.name for param in attention.params if param.name not in placed]
    return tuple(name for name in names if name in read)


def read_logits(attention: Attention) -> bool:
    """Whether a selection starts from `scores`."""
    return any(
        isinstance(node, Logits)
        for selection in attention.selections
        for whole in maps_of(selection)
        for node in submaps(whole)
    )
