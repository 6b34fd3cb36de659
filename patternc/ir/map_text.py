"""Maps and selections as text, in the language's own notation.

In: a map or a selection. Out: what one could write in a `let`. Not its job: attentions
(`ir.text`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from patternc.ir.nodes import All, BoolExpr, Expr, Index, IntExpr
from patternc.ir.selection import (
    KEY_AXES,
    Choice,
    Count,
    Crossing,
    Logits,
    MapAt,
    MapBinary,
    MapCall,
    MapExpr,
    MapFunction,
    MapNumber,
    MapOp,
    MapScale,
    MapValue,
    MapWhere,
    Norm,
    Product,
    Reduce,
    Rows,
    Selection,
    Sharing,
    Softmax,
    keys_of,
)
from patternc.ir.text import print_expr, print_float
from patternc.ir.walk import rewrite_down

_NAMES = {f"{axis.value}": place for place, axis in enumerate(KEY_AXES)}


def print_selection(selection: Selection) -> str:
    """`top(8, map per q // 64, always k // 64 == q // 64)`."""
    if selection.reach > 1:
        inner = print_selection(replace(selection, reach=1))
        return f"widened({inner}, {selection.reach})"
    keys = selection.keys
    values, shared = selection.values, ""
    if selection.shared is not Sharing.ALONE and isinstance(values, Reduce):
        values, shared = values.operand, f" over {selection.shared.value}"
    named = [print_expr(keys[place]) for place in selection.per]
    scope = f" per {_listed(named)}" if named else ""
    parts = [print_map(selection.amount), f"{print_map(values)}{scope}{shared}"]
    if selection.always is not None:
        parts.append(f"always {_condition(selection.always, keys)}")
    if selection.least is not None:
        parts.append(f"min {print_map(selection.least)}")
    if selection.most is not None:
        parts.append(f"max {print_map(selection.most)}")
    if selection.crossing is Crossing.DROP:
        parts.append("crossing drop")
    if selection.choice is Choice.ABOVE and len(parts) == 2 and not scope:
        return f"{parts[1]} {selection.compare.value} {parts[0]}"
    return f"{selection.choice.value}({', '.join(parts)})"


def print_map(map_: MapExpr) -> str:
    """A map as one could write it, with brackets around what has several parts."""
    match map_:
        case Rows():
            return map_.tokens.value
        case Logits():
            return "scores"
        case MapNumber():
            return f"{map_.value:g}"
        case MapScale():
            return "scale"
        case MapValue():
            return _with_keys(print_float(map_.value), map_.keys)
        case MapAt():
            return print_map(map_.operand)
        case MapBinary(op=MapOp.MIN | MapOp.MAX):
            return f"{map_.op.value}({print_map(map_.lhs)}, {print_map(map_.rhs)})"
        case MapBinary():
            return f"{_part(map_.lhs)} {map_.op.value} {_part(map_.rhs)}"
        case MapCall(function=MapFunction.NEGATE):
            return f"-{_part(map_.operand)}"
        case MapCall():
            return f"{map_.function.value}({print_map(map_.operand)})"
        case MapWhere():
            return _limited(map_)
        case Softmax():
            return f"softmax({print_map(map_.operand)})"
        case Reduce():
            keys = ", ".join(print_expr(key) for key in map_.keys)
            by = f" by {keys}" if keys else ""
            over = f" over {map_.over.value}" if map_.over is not Sharing.ALONE else ""
            return f"{map_.how.value}({print_map(map_.operand)}{by}{over})"
        case Product():
            return f"{_part(map_.lhs)} @ {_part(map_.rhs)}"
        case Norm():
            return f"norm({print_map(map_.operand)})"
        case Count():
            return f"count({map_.selection})"
        case _:
            assert_never(map_)


def _part(map_: MapExpr) -> str:
    text = print_map(map_)
    return f"({text})" if isinstance(map_, MapBinary | MapWhere | Product) else text


def _limited(map_: MapWhere) -> str:
    """All conditions, one inside another, behind one `where`."""
    conditions, inner = [map_.condition], map_.operand
    while isinstance(inner, MapWhere):
        conditions.insert(0, inner.condition)
        inner = inner.operand
    held = _condition(All(tuple(conditions)), keys_of(map_))
    return f"{print_map(inner)} where {held}"


def _condition(condition: BoolExpr, keys: tuple[IntExpr, ...]) -> str:
    return print_expr(over_tokens(condition, keys))


def over_tokens(expr: Expr, keys: tuple[IntExpr, ...]) -> Expr:
    """An expression over a map's axes, in terms of tokens."""

    def rule(node: Expr) -> Expr | None:
        if isinstance(node, Index) and node.axis in KEY_AXES:
            return keys[KEY_AXES.index(node.axis)]
        return None

    return rewrite_down(expr, rule)


def _with_keys(text: str, keys: tuple[IntExpr, ...]) -> str:
    """A printed number with the names of the axes replaced by the keys."""
    for name, place in _NAMES.items():
        if name in text:
            text = text.replace(name, print_expr(keys[place]))
    return text


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"
