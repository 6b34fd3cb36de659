"""The selections that an attention's masks read, as a part of the attention.

In: an attention whose masks were lowered, and the lets. Out: the attention with its
selections in order, their tables among its inputs, the places of their keys among its
parameters, and the masks that may be used instead. Not its job: lowering lets
(`check.maps`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from patternc.check.environment import Environment
from patternc.ir.fold import fold_bool
from patternc.ir.nodes import (
    Attention,
    AxisKind,
    BoolExpr,
    Compare,
    Element,
    Expr,
    FloatExpr,
    HeadCase,
    Input,
    InputAxis,
    IntExpr,
    Read,
    RuntimeParam,
    Truth,
)
from patternc.ir.selected import (
    read_by,
    selection_parts,
)
from patternc.ir.selection import (
    Selection,
)
from patternc.ir.walk import params_of, rewrite_bool, tables_of

_AXES = (InputAxis(AxisKind.BATCH), InputAxis(AxisKind.HEAD))


def with_selections(
    attention: Attention, env: Environment, or_dense: Collection[int]
) -> Attention:
    """The attention with the selections that its masks read, one after another.

    `or_dense` are the heads whose masks may be dense where that is cheaper.
    """
    known = {
        bound.table: bound
        for bound in env.lets.values()
        if isinstance(bound, Selection)
    }
    attention = replace(attention, cases=tuple(map(_with_taken, attention.cases)))
    read = {table for case in attention.cases for table in tables_of(case.mask)}
    chosen: list[Selection] = []
    for selection in reversed(known.values()):
        if selection.table in read:
            chosen.insert(0, selection)
            read |= read_by(selection)
    if not chosen:
        return attention
    params = _places(chosen, attention)
    tables = tuple(_table(selection) for selection in chosen)
    dense = tuple(
        replace(case, mask=_without(case.mask, frozenset(known)))
        if set(case.heads) <= set(or_dense)
        else case
        for case in attention.cases
    )
    return replace(
        attention,
        params=(*attention.params, *params),
        inputs=(*attention.inputs, *tables),
        selections=tuple(chosen),
        dense_cases=dense if or_dense else (),
    )


def _with_taken(case: HeadCase) -> HeadCase:
    """The case without the branches that constants rule out, if these read something.

    What only they read is not chosen: `k in a if exact == 1 else k in b`.
    """
    folded = fold_bool(case.mask)
    has_less = tables_of(folded) != tables_of(case.mask)
    return replace(case, mask=folded) if has_less else case


def _table(selection: Selection) -> Input:
    axes = (*_AXES, *(InputAxis(AxisKind.GROUP) for _ in selection.keys))
    return Input(selection.table, Element.BOOL, axes, span=selection.span)


def _places(chosen: Iterable[Selection], attention: Attention) -> list[RuntimeParam]:
    """The parameters that masks and maps read to find a key's place in its table."""
    chosen = tuple(chosen)
    read: set[str] = set()
    for case in attention.cases:
        read |= params_of(case.mask)
    for part in selections_parts(chosen)[1]:
        read |= params_of(part)
    return [
        RuntimeParam(name, None, selection.span)
        for selection in chosen
        for place in range(len(selection.keys))
        for name in (selection.first(place), selection.size(place))
        if name in read
    ]


def _without(mask: BoolExpr, tables: Collection[str]) -> BoolExpr:
    """The mask as if every selection held every key."""

    def rule(node: Expr) -> Expr:
        match node:
            case Compare(lhs=Read(table=table)) if table in tables:
                return Truth(True, node.span)
        return node

    return fold_bool(rewrite_bool(mask, rule))


def selections_parts(
    selections: Iterable[Selection],
) -> tuple[list[FloatExpr], list[IntExpr | BoolExpr]]:
    """The floating numbers in selections, and the integers and truth values."""
    floats: list[FloatExpr] = []
    discrete: list[IntExpr | BoolExpr] = []
    for selection in selections:
        for part in selection_parts(selection):
            if isinstance(part, IntExpr | BoolExpr):
                discrete.append(part)
            else:
                floats.append(part)
    return floats, discrete
