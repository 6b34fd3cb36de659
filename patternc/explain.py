"""What the compiler made of an attention, and why.

In: the trace of one compilation. Out: an `Explanation`, as text or as JSON: the
program, the IR after each pass, the loops of each head group, density as a formula and
in numbers, tiles visited, and what each assert proved and how. Not its job: deriving
any of it (`patternc.passes`, `patternc.plan`, `patternc.analysis`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from patternc import passes
from patternc.analysis.count import PairCount, pair_count
from patternc.backends.hopper.route import in_words
from patternc.backends.triton.fused import planning_lines
from patternc.backends.triton.notes import gradient_notes, path_notes
from patternc.driver import Trace
from patternc.explain_counts import Count, counts_of, density_of
from patternc.explain_selections import (
    Chosen,
    Price,
    advice_of,
    chosen_of,
    crossover_of,
    prices_of,
    selection_lines,
)
from patternc.ir.nodes import EMPTY_PATTERN, UNBOUNDED, Const, Truth
from patternc.ir.text import print_attention, print_expr, print_heads, print_order
from patternc.plan.choose import (
    FAMILY,
    bytes_beside,
    launch,
    launches,
    shared_bytes,
)
from patternc.plan.kernel import Kernel, KeyRange, Stripes, TileCover, TileKind
from patternc.plan.measured import Work

LENGTHS = (1024, 8192, 65536)
"""The lengths at which pairs and tiles are counted, with as many queries as keys.

A layout has only one length, its own.
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A pass, the attention after it (None: nothing changed), and what it found."""

    name: str
    text: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """One key range: its loop, when it runs, what a pair must pass, and from where."""

    kind: str
    loop: str
    guard: str
    test: str
    line: int
    written: str


@dataclass(frozen=True, slots=True)
class Group:
    """Heads that share one loop nest; `loops` is None where there is no closed form.

    `density` is the mean over the heads as a formula in N, or says why there is none;
    `latex` is the formula in LaTeX, or empty. `orders` are those of square calls, whose
    tiles are then listed; the loops are those of other calls. `stripes` says what is
    visited where there are no loops, but diagonals and columns that data choose.
    """

    heads: str
    mask: str
    loops: tuple[Loop, ...] | None
    reason: str
    density: str
    latex: str
    orders: tuple[str, ...]
    stripes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """An assert, whether it holds, and how that was found out."""

    line: int
    written: str
    holds: bool | None
    how: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that `patternc explain` tells, in the order in which it does."""

    name: str
    file: str
    program: str
    stages: tuple[Stage, ...]
    schedule: dict[str, int | None]
    schedule_origin: str
    launches: tuple[str, ...]
    path: tuple[str, ...]
    gradients: tuple[str, ...]
    hopper: str
    planning: tuple[str, ...]
    groups: tuple[Group, ...]
    counts: tuple[Count, ...]
    decisions: tuple[Decision, ...]
    selections: tuple[Chosen, ...] = ()
    prices: tuple[Price, ...] = ()
    crossover: str = ""
    advice: tuple[str, ...] = ()


def explain(trace: Trace, lengths: tuple[int, ...] = LENGTHS) -> Explanation:
    """Gather what there is to tell about one compilation."""
    kernel = trace.kernel
    if kernel.attention.layout is not None:
        lengths = (kernel.attention.layout.size,)
    values = {
        param.name: param.default
        for param in kernel.attention.params
        if param.default is not None
    }
    known = values if len(values) == len(kernel.attention.params) else None
    prices = prices_of(trace)
    counters = [pair_count(c.mask, kernel.attention.heads) for c in kernel.covers]
    return Explanation(
        name=trace.attention.name,
        file=trace.source.name,
        program=trace.attention.span.text,
        stages=_stages(trace),
        schedule=asdict(kernel.schedule),
        schedule_origin=trace.schedule_origin,
        launches=_launches(kernel),
        path=path_notes(kernel),
        gradients=gradient_notes(kernel),
        hopper=in_words(kernel),
        planning=planning_lines(trace.attention),
        groups=tuple(map(_group, kernel.covers, counters, [known] * len(counters))),
        counts=() if known is None else counts_of(kernel, counters, lengths, known),
        decisions=tuple(
            Decision(
                found.assertion.span.line,
                found.assertion.span.text,
                found.holds,
                found.how,
            )
            for found in trace.decisions
        ),
        selections=tuple(map(chosen_of, kernel.attention.selections)),
        prices=prices,
        crossover=crossover_of(trace),
        advice=advice_of(trace, prices),
    )


def as_json(found: Explanation) -> dict[str, object]:
    """The explanation in dictionaries, lists, strings, numbers and None."""
    return asdict(found)


def as_text(found: Explanation) -> str:
    """The explanation to read."""
    parts = [f"{found.file}: {found.name}", "", found.program]
    for stage in found.stages:
        parts += ["", f"# after {stage.name}:" + ("" if stage.text else " no change")]
        parts += [stage.text] if stage.text else []
        parts += [f"  {note}" for note in stage.notes]
    told = (found.selections, found.prices, found.crossover, found.advice)
    parts += selection_lines(*told)
    parts += ["", *_schedule_lines(found)]
    if found.planning:
        parts += ["", "# selections, on a GPU"]
    parts += [f"  {line}" for line in found.planning]
    for group in found.groups:
        parts += ["", *_group_lines(group)]
    parts += ["", *_count_lines(found.counts)]
    if found.decisions:
        parts += ["", "# asserts"]
    parts += [_decision_line(decision) for decision in found.decisions]
    return "\n".join(parts)


def _schedule_lines(found: Explanation) -> list[str]:
    """What was picked, from where, and the block that freezes it in the program."""
    settings = found.schedule.items()
    blocks = ", ".join(
        f"{key} {'by head size' if value is None else value}" for key, value in settings
    )
    given = [f"{key} = {value}" for key, value in settings if value is not None]
    return [
        f"# schedule: {blocks}",
        f"  {found.schedule_origin}",
        f"  to freeze it: schedule {{ {', '.join(given)} }}",
        *(f"  {launch}" for launch in found.launches),
        *(f"  path: {note}" for note in found.path),
        *(f"  gradient of {note}" for note in found.gradients),
        f"  hopper: {found.hopper}",
    ]


def _launches(kernel: Kernel) -> tuple[str, ...]:
    """Warps and stages of the forward kernel by head size, and how they are known."""
    schedule, lines = kernel.schedule, []
    beside = bytes_beside(kernel)
    taken = launches(schedule, [Work.FORWARD], beside=beside)
    for columns in (64, 128):
        one = launch(Work.FORWARD, schedule, columns, itemsize=2)
        _, stages = taken[(Work.FORWARD.value, columns, 2)]
        needed = shared_bytes(Work.FORWARD, schedule, columns, 2, stages)
        how = "measured" if one.is_measured else "by rule"
        if stages < one.stages:
            how += ", fewer for the inputs that are read for each key"
        lines.append(
            f"forward on {FAMILY}, head size {columns}, 16 bits: {one.warps} warps,"
            f" {stages} stages ({how}), {needed} bytes of shared memory"
        )
    return tuple(lines)


def _stages(trace: Trace) -> tuple[Stage, ...]:
    """Each pass with its result, where it is not what the pass before left."""
    before = print_attention(trace.attention)
    stages = [Stage("check", before)]
    notes = dict(passes.notes(trace.attention, trace.kernel.schedule))
    for name, attention in trace.after:
        text = print_attention(attention)
        stages.append(Stage(name, None if text == before else text, notes[name]))
        before = text
    return tuple(stages)


def _group(
    cover: TileCover, counter: PairCount, values: Mapping[str, int] | None
) -> Group:
    density, latex = density_of(cover, counter, values)
    return Group(
        heads=print_heads(cover.heads),
        mask=print_expr(cover.mask),
        loops=None if cover.ranges is None else tuple(map(_loop, cover.ranges)),
        reason=cover.reason,
        density=density,
        latex=latex,
        orders=tuple(print_order(case, cover.layout) for case in cover.order),
        stripes=_stripes(cover.stripes),
    )


def _stripes(own: Stripes | None) -> tuple[str, ...]:
    """What the triton backend visits of chosen diagonals and columns."""
    lines: list[str] = []
    if own is not None and own.diagonals != EMPTY_PATTERN:
        lines += [
            f"diagonals: {print_expr(own.diagonals)}",
            "  tiles that begin at any key, one list for all query tiles of a head",
        ]
    if own is not None and own.columns != EMPTY_PATTERN:
        lines += [
            f"columns: {print_expr(own.columns)}",
            f"  gathered, a tile of them at a time, where {print_expr(own.within)}",
        ]
    if own is not None and own.blocks is not None:
        blocks = own.blocks
        size = f"{blocks.block_q} queries and {blocks.block_k} keys"
        where = print_expr(blocks.within)
        lines += [
            f"blocks: {print_expr(blocks.mask)}",
            f"  of {size}, a list for each block of queries, where {where}",
        ]
    return tuple(lines)


def _loop(part: KeyRange) -> Loop:
    ends = [print_expr(part.lo)]
    open_ended = part.hi == Const(UNBOUNDED)
    ends.append("key_tiles" if open_ended else print_expr(part.hi))
    ends += [str(part.step)] if part.step != 1 else []
    line = part.span.line
    return Loop(
        kind=part.kind.value,
        loop=f"for kt in range({', '.join(ends)})",
        guard="" if part.guard == Truth(True) else print_expr(part.guard),
        test=print_expr(part.residual) if part.kind is TileKind.PARTIAL else "",
        line=line,
        written=part.span.source.line_text(line).strip(),
    )


def _group_lines(group: Group) -> list[str]:
    lines = [f"# heads {group.heads}: {group.mask}"]
    if group.orders:
        orders = " and ".join(group.orders)
        lines.append(f"  square calls: tokens in the order {orders}, tiles listed")
    if group.loops is None:
        lines.append(f"  no closed form: {group.reason}")
        lines.append("  tiles are listed for the sizes and the inputs of a call")
    if group.stripes:
        lines.append("  but in triton, one softmax goes over what is chosen:")
        lines += [f"    {line}" for line in group.stripes]
    for loop in group.loops or ():
        lines.append(f"  # line {loop.line}: {loop.written}")
        indent = "  "
        if loop.guard:
            lines.append(f"  if {loop.guard}:")
            indent = "    "
        lines.append(f"{indent}{loop.loop}:  # {loop.kind}")
        if loop.test:
            lines.append(f"{indent}    test {loop.test}")
    return [*lines, f"  density: {group.density}"]


def _count_lines(counts: tuple[Count, ...]) -> list[str]:
    if not counts:
        return ["# pairs and tiles are not counted: they depend on what a call gives"]
    lines = ["# with N queries and N keys, for each head"]
    lines.append(
        f"{'N':>8}  {'density':>9}  {'visited':>9} {'partial':>9}"
        f" {'of tiles':>10}  heads"
    )
    for count in counts:
        density = "?" if count.density is None else f"{count.density:.6f}"
        lines.append(
            f"{count.n:>8}  {density:>9}  {count.visited:>9}"
            f" {count.partial:>9} {count.total:>10}  {count.heads}"
        )
    return lines


def _decision_line(decision: Decision) -> str:
    word = {True: "holds", False: "fails", None: "not decided"}[decision.holds]
    return f"line {decision.line}: {decision.written}\n  {word}: {decision.how}"
