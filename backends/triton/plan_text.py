"""The text of `plan`: a module chooses keys by itself, with torch and triton alone.

In: the steps of an attention's selections (`plan_steps`). Out: the text, or None where a
map needs more: patternc's own planner then serves the call (`planner`). Not its job: the
kernels (`estimate`), the steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from patternc.analysis.interval import Box, python_bounds
from patternc.backends.triton.expr import LIMIT, PythonPrinter, TorchPrinter
from patternc.backends.triton.fused import Fused, Probe
from patternc.backends.triton.literals import literal
from patternc.backends.triton.plan_steps import (
    LAST,
    Q_OFFSET,
    Arithmetic,
    Blocks,
    EachRow,
    Joined,
    Planning,
    Pooled,
    SelectionSteps,
    Shares,
    Side,
    Step,
    Sums,
    Unplanned,
    Where,
    least_rows,
    planning_of,
)
from patternc.backends.triton.ranges import place
from patternc.backends.triton.tables import call_lines
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Attention, Axis, BoolExpr, Const, IntExpr
from patternc.ir.selection import (
    Choice,
    Crossing,
    MapFunction,
    Reduction,
    Sharing,
)

_KEYS = {Axis.FIRST: "e_0", Axis.SECOND: "e_1", Axis.LENGTH: "length"}
_INDENT = 8
_CALL = {Axis.LENGTH: "n_k"}
_FUNCTIONS = {
    function: f"torch.{function.value}({{}})"
    for function in MapFunction
    if function is not MapFunction.NEGATE
} | {MapFunction.NEGATE: "-{}"}


@dataclass
class _Text:
    """The lines of `select` so far: what comes before a selection's rows, and in them."""

    planning: Planning
    box: Box
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    started: set[int] = field(default_factory=set)
    by_rows: bool = False
    steps: list[tuple[str, str]] = field(default_factory=list)
    names: int = 0

    def name(self, kind: str) -> str:
        """A name that is new: `map_3` for numbers, `live_3` for which are there."""
        self.names += 1
        return f"{kind}_{self.names}"

    def end(self, value: IntExpr) -> str:
        """A position of a call."""
        return PythonPrinter(_CALL, self.box, "{}").print(value)

    def rows(self, name: str) -> str:
        """Those of a map that are computed at a time."""
        return f"{name}[:, :, low:high]" if self.by_rows else name


def plan_function(attention: Attention, fused: Fused, box: Box) -> str | None:
    """The text of `plan` and what it calls, or None."""
    try:
        planning = planning_of(attention, fused)
    except Unplanned:
        return None
    ends = python_bounds(-2 * LIMIT, 2 * LIMIT)
    axes = {**box.axes, Axis.FIRST: ends, Axis.SECOND: ends}
    own = {Q_OFFSET.name: ends, LAST.name: ends}
    known = replace(box, axes=axes, params={**box.params, **own})
    text = _Text(planning, known)
    lines: list[str] = []
    nothing: list[str] = []
    for steps in planning.selections:
        lines += _selection(text, steps)
        nothing += _nothing(steps)
    names = ["length = torch.tensor(n_k)"]
    for name in planning.params:
        names += [f'p_{name} = values["{name}"]', f"t_{name} = torch.tensor(p_{name})"]
    constant = "\n".join(literal("PLAN_PARAMS", planning.params))
    holes = {"nothing": nothing, "names": names, "selections": lines}
    texts = [constant, fill("plan", holes), fill("plan_parts")]
    return "\n\n\n".join(part.rstrip("\n") for part in texts) + "\n"


def _nothing(steps: SelectionSteps) -> Iterator[str]:
    """The empty table of a call without queries or keys."""
    sizes = ", ".join("0" for _ in steps.ends)
    name = steps.selection.table
    yield f'found["{name}"] = q.new_zeros((*q.shape[:2], {sizes}), dtype=torch.bool)'
    for first in steps.firsts:
        if first:
            yield f'found["{first}"] = 0'


def _selection(text: _Text, own: SelectionSteps) -> list[str]:
    """The lines that choose one selection's keys."""
    selection, count = own.selection, len(own.ends)
    text.by_rows = own.by_rows
    text.before, text.body, text.steps = [], [], []
    pairs = ", ".join(f"({text.end(low)}, {text.end(high)})" for low, high in own.ends)
    sizes = ", ".join(f"ranges[{at}][1] - ranges[{at}][0] + 1" for at in range(count))
    for step in own.steps:
        text.steps.append(_step(text, step))
    _choose(text, own)
    lines = [f"# {place(selection.span)}", f"ranges = [{pairs}]"]
    if count == 1:
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
        if count == 2:
            axes.append("e_0 = axis(q, ranges[0][0], ranges[0][1] + 1, 0, 2)")
        lines += [*text.before, *axes, *text.body, "table = taken"]
    edges = []
    for at, move in reversed(list(enumerate(own.moves))):
        edges += [f"ranges[{at}][0]" if move != Const(0) else "0", "0"]
    if set(edges) != {"0"}:
        padded = f"torch.nn.functional.pad(table, ({', '.join(edges)}))"
        lines.append(f"table = {padded}")
    lines.append(f'found["{selection.table}"] = table')
    for at, first in enumerate(own.firsts):
        if first:
            lines.append(f'found["{first}"] = ranges[{at}][0]')
    return lines


def _step(text: _Text, step: Step) -> tuple[str, str]:
    """The names of a step's numbers and of its live entries."""
    match step:
        case Sums():
            return _summed(text, step)
        case Blocks():
            return _product(text, step)
        case Where():
            numbers, live = text.steps[step.operand]
            name = text.name("live")
            text.body += _condition(text, "held", step.condition)
            text.body.append(f"{name} = {live} & held")
            return numbers, name
        case Shares():
            numbers, live = text.steps[step.operand]
            name = text.name("map")
            text.body.append(f"{name} = softmax_of({numbers}, {live})")
            return name, live
        case Joined():
            given = [*text.steps[step.operand], _heads(step.over)]
            name, live = text.name("map"), text.name("live")
            text.body += call_lines(f"{name}, {live}", "summed_heads", given, _INDENT)
            return name, live
        case Arithmetic():
            return _arithmetic(text, step)
        case _:
            assert_never(step)


def _arithmetic(text: _Text, step: Arithmetic) -> tuple[str, str]:
    """A map and a number, or two maps."""
    both = (step.lhs, step.rhs)
    lives = [text.steps[side][1] for side in both if isinstance(side, int)]
    lhs, rhs = (_side(text, side) for side in both)
    name = text.name("map")
    text.body.append(f"{name} = {lhs} {step.sign} {rhs}")
    if len(set(lives)) == 1:
        return name, lives[0]
    live = text.name("live")
    text.body.append(f"{live} = {lives[0]} & {lives[1]}")
    return name, live


def _side(text: _Text, side: Side) -> str:
    if side is None:
        return "scale"
    return text.steps[side][0] if isinstance(side, int) else repr(side)


def _heads(over: Sharing) -> str:
    """How many heads, one after another, are put together."""
    heads = {Sharing.ALONE: "1", Sharing.ALL: "HEADS"}
    return heads.get(over, "HEADS // KV_HEADS")


def _summed(text: _Text, step: Sums) -> tuple[str, str]:
    """Groups of the scores of some rows."""
    if step.probe not in text.started:
        text.started.add(step.probe)
        probe = text.planning.probes[step.probe]
        text.before += _started(text, step.probe, probe)
    numbers, live = text.name("map"), text.name("live")
    size = _heads(step.over)
    joins = "sum" if step.how is Reduction.MEAN else step.how.value
    asked = [f'"{joins}"', f'"{step.by.value}"', *map(str, step.sizes)]
    text.before += call_lines("sums", f"probe_{step.probe}.summed", asked, 4)
    shared = "" if size == "1" else f", {size}"
    text.before.append(
        f'{numbers}, {live} = spread_groups("{step.how.value}", sums, ranges{shared})'
    )
    return text.rows(numbers), text.rows(live)


def _started(text: _Text, at: int, probe: Probe) -> list[str]:
    """The rows of a map of scores, and its sums."""
    printer = PythonPrinter(_CALL, text.box)
    stride = probe.stride
    first, end = "q_offset", "last + 1"
    if stride > 1:
        first, end = f"q_offset // {stride}", f"last // {stride} + 1"
    for least in least_rows(probe):
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


def _product(text: _Text, step: Blocks) -> tuple[str, str]:
    """Blocks of Q, or each of its rows, with blocks of K."""
    if isinstance(step.queries, EachRow):
        rows = text.name("rows")
        text.body.append(f"{rows} = {text.rows('q')}.to(torch.float32)")
        for function in step.queries.functions:
            text.body.append(f"{rows} = {_FUNCTIONS[function].format(rows)}")
    else:
        rows = text.rows(_pooled(text, step.queries, "q", "q_offset"))
    columns = _pooled(text, step.keys, "k", "0")
    text.before.append(f"{columns} = {columns}.repeat_interleave(HEADS // KV_HEADS, 1)")
    numbers, live = text.name("map"), text.name("live")
    text.body.append(f"{numbers} = {rows} @ {columns}.mT")
    text.body.append(f"{live} = torch.ones_like(e_0 + e_1, dtype=torch.bool)")
    return numbers, live


def _pooled(text: _Text, side: Pooled, source: str, offset: str) -> str:
    """The name of blocks of rows."""
    name = text.name("rows")
    pooled = f'pool({source}, "{side.how.value}", {side.size}, {offset})'
    text.before.append(f"{name} = {pooled}")
    return name


def _condition(text: _Text, target: str, condition: BoolExpr) -> list[str]:
    """Lines that assign whether a condition on keys holds."""
    return TorchPrinter(_KEYS, text.box, "t_{}").assign(target, condition, _INDENT)


def _choose(text: _Text, own: SelectionSteps) -> None:
    """Lines that assign `taken`, the chosen entries."""
    selection, (numbers, live) = own.selection, text.steps[-1]
    always = f"{live} & False"
    if selection.always is not None:
        text.body += _condition(text, "held", selection.always)
        always = f"{live} & held"
    text.body.append(f"always = {always}")
    bounds = [_amount(text, x) for x in (own.least, own.most)]
    match selection.choice:
        case Choice.ABOVE:
            held = f"{numbers} {selection.compare.value} {own.share!r}"
            text.body.append(f"taken = {live} & ({held}) | always")
            return
        case Choice.TOP_P:
            keeps = selection.crossing is Crossing.KEEP
            asked = ["choose_top_p", repr(own.share), str(keeps)]
        case Choice.TOP:
            asked = ["choose_top", _amount(text, own.amount)]
        case _:
            assert_never(selection.choice)
    sides = [numbers, live, "always"]
    is_map = not own.by_rows and len(own.ends) == 2
    if is_map:  # one scope: all entries of a head
        sides = [f"{side}.flatten(2)" for side in sides]
    has_bounds = bounds != ["None", "None"]
    arguments = [asked[0], *sides, *asked[1:], *(bounds if has_bounds else [])]
    text.body += call_lines("taken", "chosen", arguments, _INDENT)
    if is_map:
        text.body.append(f"taken = taken.view({numbers}.shape)")


def _amount(text: _Text, amount: IntExpr | None) -> str:
    """A whole number that no data decides, as Python text."""
    return "None" if amount is None else PythonPrinter(_CALL, text.box).print(amount)
