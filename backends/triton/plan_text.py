"""The text of `plan`: a module chooses keys by itself, with torch and triton alone.

In: an attention whose selections are all made of maps that have kernels, or of blocks of
Q and K. Out: the text, or None where a map needs more: patternc's own planner then
serves the call (`planner`). Not its job: the kernels (`estimate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import assert_never

from patternc.analysis.interval import Box, python_bounds
from patternc.backends.probe import flat
from patternc.backends.triton.expr import LIMIT, PythonPrinter, TorchPrinter
from patternc.backends.triton.fused import Fused, Probe
from patternc.backends.triton.literals import literal
from patternc.backends.triton.ranges import place
from patternc.backends.triton.tables import call_lines
from patternc.backends.triton.template import fill
from patternc.ir.nodes import (
    Attention,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    FloatExpr,
    FromInt,
    Index,
    IntExpr,
    IntOp,
    Truth,
)
from patternc.ir.selected import placed_params
from patternc.ir.selection import (
    Choice,
    Crossing,
    MapBinary,
    MapExpr,
    MapNumber,
    MapOp,
    MapScale,
    MapValue,
    MapWhere,
    Product,
    Reduce,
    Rows,
    Selection,
    Sharing,
    Softmax,
    Tokens,
    keys_of,
)
from patternc.ir.walk import axes_of, subexpressions, tables_of

_KEYS = {Axis.FIRST: "e_0", Axis.SECOND: "e_1", Axis.LENGTH: "length"}
_INDENT = 8
_CALL = {Axis.LENGTH: "n_k"}
_SIGNS = {MapOp.ADD: "+", MapOp.SUB: "-", MapOp.MUL: "*", MapOp.DIV: "/"}


class Unplanned(Exception):
    """A map that the text of a module cannot compute."""


@dataclass
class _Text:
    """The lines of `select` so far: what comes before a selection's rows, and in them."""

    attention: Attention
    fused: Fused
    box: Box
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    started: set[int] = field(default_factory=set)
    by_rows: bool = False
    names: int = 0

    def name(self, kind: str) -> str:
        """A name that is new: `map_3` for numbers, `live_3` for which are there."""
        self.names += 1
        return f"{kind}_{self.names}"


def plan_function(attention: Attention, fused: Fused, box: Box) -> str | None:
    """The text of `plan` and what it calls, or None."""
    ends = python_bounds(-2 * LIMIT, 2 * LIMIT)
    axes = {**box.axes, Axis.FIRST: ends, Axis.SECOND: ends}
    text = _Text(attention, fused, replace(box, axes=axes))
    lines: list[str] = []
    nothing: list[str] = []
    try:
        for selection in attention.selections:
            lines += _selection(text, selection)
            nothing += _nothing(attention, selection)
    except Unplanned:
        return None
    placed = placed_params(attention)
    own = {x.name: x.default for x in attention.params if x.name not in placed}
    names = ["length = torch.tensor(n_k)"]
    for name in own:
        names += [f'p_{name} = values["{name}"]', f"t_{name} = torch.tensor(p_{name})"]
    constant = "\n".join(literal("PLAN_PARAMS", own))
    holes = {"nothing": nothing, "names": names, "selections": lines}
    return f"{constant}\n\n\n{fill('plan', holes)}"


def _nothing(attention: Attention, selection: Selection) -> Iterator[str]:
    """The empty table of a call without queries or keys."""
    sizes = ", ".join("0" for _ in selection.keys)
    name = selection.table
    yield f'found["{name}"] = q.new_zeros((*q.shape[:2], {sizes}), dtype=torch.bool)'
    for first in _firsts(attention, selection):
        if first:
            yield f'found["{first}"] = 0'


def _firsts(attention: Attention, selection: Selection) -> list[str]:
    """For each key the parameter of `forward` that holds its least value, or ""."""
    known = {param.name for param in attention.params}
    firsts = [selection.first(at) for at in range(len(selection.keys))]
    return [name if name in known else "" for name in firsts]


def _selection(text: _Text, selection: Selection) -> list[str]:
    """The lines that choose one selection's keys."""
    keys = selection.keys
    if selection.shared is not Sharing.ALONE and not isinstance(
        selection.values, Reduce
    ):
        raise Unplanned
    if selection.per not in ((), (0,)) or len(keys) > 2 or not keys:
        raise Unplanned
    text.by_rows = selection.per == (0,) and len(keys) == 2
    if selection.per and not text.by_rows:
        raise Unplanned
    text.before, text.body = [], []
    pairs = ", ".join(f"({low}, {high})" for low, high in map(_ends, keys))
    sizes = ", ".join(
        f"ranges[{at}][1] - ranges[{at}][0] + 1" for at in range(len(keys))
    )
    numbers, live = _map(text, selection.values)
    _choose(text, selection, numbers, live)
    name = selection.table
    lines = [f"# {place(selection.span)}", f"ranges = [{pairs}]"]
    if len(keys) == 1:
        axes = ["e_0 = axis(q, ranges[0][0], ranges[0][1] + 1, 0, 1)"]
    else:
        axes = ["e_1 = axis(q, ranges[1][0], ranges[1][1] + 1, 1, 2)"]
    if text.by_rows:
        axes.append("e_0 = axis(q, ranges[0][0] + low, ranges[0][0] + high, 0, 2)")
        lines += [f"sizes = [{sizes}]", *text.before]
        lines.append("table = q.new_empty((*q.shape[:2], *sizes), dtype=torch.bool)")
        lines.append("for low, high in runs(q, sizes[1], sizes[0]):")
        inner = [*axes, *text.body, "table[:, :, low:high] = taken"]
        lines += [f"    {line}" for line in inner]
    else:
        if len(keys) == 2:
            axes.append("e_0 = axis(q, ranges[0][0], ranges[0][1] + 1, 0, 2)")
        lines += [*text.before, *axes, *text.body, "table = taken"]
    edges = []
    for at in reversed(range(len(keys))):
        is_moved = selection.starts_at_0[at] and _ends(keys[at])[0] != "0"
        edges += [f"ranges[{at}][0]" if is_moved else "0", "0"]
    if set(edges) != {"0"}:
        padded = f"torch.nn.functional.pad(table, ({', '.join(edges)}))"
        lines.append(f"table = {padded}")
    lines.append(f'found["{name}"] = table')
    for at, first in enumerate(_firsts(text.attention, selection)):
        if first:
            lines.append(f'found["{first}"] = ranges[{at}][0]')
    return lines


def _ends(key: IntExpr) -> tuple[str, str]:
    """The least and the greatest value of a key in a call."""
    match key:
        case Index(axis=Axis.QUERY):
            return "q_offset", "last"
        case Index(axis=Axis.KEY):
            return "0", "n_k - 1"
        case Binary(op=IntOp.FLOORDIV, lhs=inner, rhs=Const(value=size)) if size > 0:
            low, high = _ends(inner)
            ends = (f"{_bracketed(end)} // {size}" for end in (low, high))
            least, most = ends
            return ("0" if low == "0" else least), most
        case Binary(op=IntOp.SUB, lhs=lhs, rhs=rhs):
            (low, high), (least, most) = _ends(lhs), _ends(rhs)
            least = "" if least == "0" else f" - {_bracketed(least)}"
            return f"{low} - {_bracketed(most)}", f"{high}{least}"
        case Binary(op=IntOp.ADD, lhs=lhs, rhs=rhs):
            (low, high), (least, most) = _ends(lhs), _ends(rhs)
            return f"{low} + {least}", f"{high} + {most}"
    raise Unplanned


def _bracketed(text: str) -> str:
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _map(text: _Text, map_: MapExpr) -> tuple[str, str]:
    """The names of a map's numbers and of its live entries."""
    match map_:
        case Reduce() if map_ in text.fused.sums:
            return _summed(text, map_)
        case Product(lhs=Reduce() as lhs, rhs=Reduce() as rhs):
            return _product(text, lhs, rhs)
        case MapWhere():
            numbers, live = _map(text, map_.operand)
            name = text.name("live")
            text.body += _condition(text, "held", map_.condition)
            text.body.append(f"{name} = {live} & held")
            return numbers, name
        case Softmax() if len(keys_of(map_)) > 1 or not text.by_rows:
            numbers, live = _map(text, map_.operand)
            name = text.name("map")
            text.body.append(f"{name} = softmax_of({numbers}, {live})")
            return name, live
        case MapBinary() if map_.op in _SIGNS:
            return _arithmetic(text, map_)
    raise Unplanned


def _arithmetic(text: _Text, map_: MapBinary) -> tuple[str, str]:
    """A map and a number, or two maps."""
    sides, lives = [], []
    for side in (map_.lhs, map_.rhs):
        match side:
            case MapNumber(value=value) if isfinite(value):
                sides.append(repr(value))
            case MapScale():
                sides.append("scale")
            case _:
                numbers, live = _map(text, side)
                sides.append(numbers)
                lives.append(live)
    if not lives:
        raise Unplanned
    name = text.name("map")
    text.body.append(f"{name} = {sides[0]} {_SIGNS[map_.op]} {sides[1]}")
    if len(set(lives)) == 1:
        return name, lives[0]
    both = text.name("live")
    text.body.append(f"{both} = {lives[0]} & {lives[1]}")
    return name, both


def _summed(text: _Text, map_: Reduce) -> tuple[str, str]:
    """Groups of the scores of some rows."""
    found = text.fused.sums[map_]
    probe = text.fused.probes[found.probe]
    if found.probe not in text.started:
        text.started.add(found.probe)
        text.before += _started(text, found.probe, probe)
    numbers, live = text.name("map"), text.name("live")
    heads = {Sharing.ALONE: "1", Sharing.ALL: "HEADS"}
    size = heads.get(map_.over, "HEADS // KV_HEADS")
    joins = "sum" if map_.how.value == "mean" else map_.how.value
    asked = [f'"{joins}"', f'"{found.by.value}"', *map(str, found.sizes)]
    text.before += call_lines("sums", f"probe_{found.probe}.summed", asked, 4)
    shared = "" if size == "1" else f", {size}"
    text.before.append(
        f'{numbers}, {live} = spread_groups("{map_.how.value}", sums, ranges{shared})'
    )
    return _rows(text, numbers), _rows(text, live)


def _rows(text: _Text, name: str) -> str:
    return f"{name}[:, :, low:high]" if text.by_rows else name


def _started(text: _Text, at: int, probe: Probe) -> list[str]:
    """The rows of a map of scores, and its sums."""
    printer = PythonPrinter(_CALL, text.box)
    stride = probe.stride
    first, end = "q_offset", "last + 1"
    if stride > 1:
        first, end = f"q_offset // {stride}", f"last // {stride} + 1"
    for term in flat(probe.condition):
        match term:
            case Compare(op=CompareOp.GE, lhs=Index(axis=Axis.QUERY), rhs=least):
                if axes_of(least) <= {Axis.LENGTH}:
                    first = f"max({first}, {printer.print(least)})"
    params = "".join(f"p_{name}, " for name in probe.params)
    scale = "scale" if probe.times == 1 else f"scale * {probe.times!r}"
    arguments = [f"MAP_{at}", "q", "k", scale, "q_offset", first, end]
    arguments += [f"({params})", str(probe.is_softmax), str(stride), str(probe.residue)]
    return [
        f"probe_{at} = Probe(",
        *(f"    {argument}," for argument in arguments),
        ")",
    ]


def _product(text: _Text, lhs: Reduce, rhs: Reduce) -> tuple[str, str]:
    """Blocks of Q with blocks of K."""
    sides = []
    for side, tokens in ((lhs, Tokens.QUERIES), (rhs, Tokens.KEYS)):
        is_rows = isinstance(side.operand, Rows) and side.operand.tokens is tokens
        if (
            side not in text.fused.pools
            or not is_rows
            or side.over is not Sharing.ALONE
        ):
            raise Unplanned
        name, size = text.name("rows"), text.fused.pools[side]
        source, offset = ("q", "q_offset") if tokens is Tokens.QUERIES else ("k", "0")
        pooled = f'pool({source}, "{side.how.value}", {size}, {offset})'
        text.before.append(f"{name} = {pooled}")
        sides.append(name)
    text.before.append(
        f"{sides[1]} = {sides[1]}.repeat_interleave(HEADS // KV_HEADS, 1)"
    )
    numbers, live = text.name("map"), text.name("live")
    text.body.append(f"{numbers} = {_rows(text, sides[0])} @ {sides[1]}.mT")
    text.body.append(f"{live} = torch.ones_like(e_0 + e_1, dtype=torch.bool)")
    return numbers, live


def _condition(text: _Text, target: str, condition: BoolExpr) -> list[str]:
    """Lines that assign whether a condition on keys holds."""
    parts = subexpressions(condition)
    if tables_of(condition) or any(isinstance(part, Truth) for part in parts):
        raise Unplanned
    if Axis.HEAD in axes_of(condition):
        raise Unplanned
    return TorchPrinter(_KEYS, text.box, "t_{}").assign(target, condition, _INDENT)


def _choose(text: _Text, selection: Selection, numbers: str, live: str) -> None:
    """Lines that assign `taken`, the chosen entries."""
    always = f"{live} & False"
    if selection.always is not None:
        text.body += _condition(text, "held", selection.always)
        always = f"{live} & held"
    text.body.append(f"always = {always}")
    bounds = [_amount(text, x) for x in (selection.least, selection.most)]
    amount, has_bounds = selection.amount, bounds != ["None", "None"]
    if selection.choice is not Choice.TOP and not isinstance(amount, MapNumber):
        raise Unplanned
    match selection.choice:
        case Choice.ABOVE:
            assert isinstance(amount, MapNumber)
            if has_bounds or not isfinite(amount.value):
                raise Unplanned
            held = f"{numbers} {selection.compare.value} {amount.value!r}"
            text.body.append(f"taken = {live} & ({held}) | always")
            return
        case Choice.TOP_P:
            assert isinstance(amount, MapNumber)
            keeps = selection.crossing is Crossing.KEEP
            asked = ["choose_top_p", repr(amount.value), str(keeps)]
        case Choice.TOP:
            asked = ["choose_top", _amount(text, amount)]
        case _:
            assert_never(selection.choice)
    sides = [numbers, live, "always"]
    is_map = not selection.per and len(selection.keys) == 2
    if is_map:  # one scope: all entries of a head
        sides = [f"{side}.flatten(2)" for side in sides]
    arguments = [asked[0], *sides, *asked[1:], *(bounds if has_bounds else [])]
    text.body += call_lines("taken", "chosen", arguments, _INDENT)
    if is_map:
        text.body.append(f"taken = taken.view({numbers}.shape)")


def _amount(text: _Text, map_: MapExpr | None) -> str:
    """A whole number that no data decides, as Python text."""
    match map_:
        case None:
            return "None"
        case MapNumber(value=value) if value == int(value):
            return str(int(value))
        case MapValue(keys=(), value=value):
            return _whole(text, value)
        case MapBinary(op=MapOp.MIN | MapOp.MAX as op, lhs=lhs, rhs=rhs):
            return f"{op.value}({_amount(text, lhs)}, {_amount(text, rhs)})"
        case MapBinary(op=MapOp.ADD | MapOp.SUB | MapOp.MUL as op, lhs=lhs, rhs=rhs):
            return f"({_amount(text, lhs)} {op.value} {_amount(text, rhs)})"
    raise Unplanned


def _whole(text: _Text, value: FloatExpr) -> str:
    match value:
        case FromInt(operand=operand):
            if tables_of(operand) or axes_of(operand) - {Axis.LENGTH}:
                raise Unplanned
            return PythonPrinter(_CALL, text.box).print(operand)
    raise Unplanned
