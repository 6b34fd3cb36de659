"""The key tiles of a query tile, as Triton text.

In: a kernel. Out: what each loop step visits, and the lines that count each range's
tiles. Not its job: the loops (`loops`), expressions (`expr`).

All head groups share two loops, one over PARTIAL tiles, which are masked, and one over
FULL tiles, which are not (one loop with a branch is 6 % slower for causal and 25 % with
64 columns, on an H200). Their steps go through slots: each group puts its PARTIAL ranges
into the partial slots and its FULL ones into the full slots; a slot that a group does
not use counts no tiles. Masks that are equal share one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from patternc.analysis.interval import Box
from patternc.backends.triton.expr import Printer, kernel_box, needs_64_bits
from patternc.ir.nodes import (
    FULL_PATTERN,
    HEAD,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    IntOp,
    Truth,
)
from patternc.ir.text import print_expr, print_heads
from patternc.plan.kernel import Kernel, KeyRange, TileCover, TileKind
from patternc.source import Span

_RANGE_NAMES = {
    Axis.QUERY_TILE: "qt",
    Axis.KEY_TILE: "kt",
    Axis.HEAD: "h",
    Axis.LENGTH: "n_k",
}
MASK_NAMES = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "n_k"}


@dataclass(frozen=True, slots=True)
class Slots:
    """What the head groups put into each slot; None where a group has nothing.

    `rules` are the distinct masks of PARTIAL tiles. `by_element` says whether lists
    differ between batch elements. With `reverse` the ranges are those of `plan.reverse`:
    the loops go over the query tiles of one key tile, inside of one over heads.
    """

    kernel: Kernel
    partial: tuple[tuple[KeyRange | None, ...], ...]
    full: tuple[tuple[KeyRange | None, ...], ...]
    rules: tuple[BoolExpr, ...]
    by_element: bool = False
    reverse: bool = False

    @property
    def tile(self) -> str:
        """What the loops go over."""
        return "qt" if self.reverse else "kt"

    @property
    def indent(self) -> int:
        """The indent of the lines before the loops."""
        return 8 if self.reverse else 4

    @property
    def names(self) -> list[str]:
        """The slots in the order in which the loop goes through them."""
        partial = [f"partial_{at}" for at in range(len(self.partial))]
        return partial + [f"full_{at}" for at in range(len(self.full))]

    @property
    def every(self) -> list[tuple[KeyRange | None, ...]]:
        """What is in the slots, in the order of `names`."""
        return [*self.partial, *self.full]


def is_listed(cover: TileCover) -> bool:
    """Whether the cover's tiles come from a list, not from ranges."""
    return cover.ranges is None


def has_lists(kernel: Kernel) -> bool:
    """Whether some head group's tiles come from a list."""
    return any(is_listed(cover) for cover in kernel.covers)


def hides_pairs(kernel: Kernel) -> bool:
    """Whether a tile may hold pairs that are invisible."""
    return any(
        cover.ranges is None
        or any(part.kind is TileKind.PARTIAL for part in cover.ranges)
        for cover in kernel.covers
    )


def assign_slots(
    kernel: Kernel, by_element: bool = False, reverse: bool = False
) -> Slots:
    """Give every range of every head group a slot. A list takes one of each kind."""
    rules: list[BoolExpr] = []
    groups: list[list[KeyRange]] = []
    for cover in kernel.covers:
        ranges = _listed_ranges(cover) if cover.ranges is None else cover.ranges
        live = [part for part in ranges if part.guard != Truth(False)]
        for part in live:
            if part.residual not in rules and _has_rule(part):
                rules.append(part.residual)
        groups.append(live)
    return Slots(
        kernel,
        _columns(groups, TileKind.PARTIAL, rules),
        _columns(groups, TileKind.FULL, rules),
        tuple(rules),
        by_element,
        reverse,
    )


def _has_rule(part: KeyRange) -> bool:
    return part.kind is TileKind.PARTIAL and part.residual != FULL_PATTERN


def _listed_ranges(cover: TileCover) -> tuple[KeyRange, ...]:
    """A PARTIAL and a FULL slot; their bounds are not read."""
    none = Const(0)
    return (
        KeyRange(TileKind.PARTIAL, none, none, 1, Truth(True), cover.mask, cover.span),
        KeyRange(TileKind.FULL, none, none, 1, Truth(True), FULL_PATTERN, cover.span),
    )


def _columns(
    groups: Sequence[Sequence[KeyRange]], kind: TileKind, rules: list[BoolExpr]
) -> tuple[tuple[KeyRange | None, ...], ...]:
    """One tuple for each slot, with what each group puts there.

    A group's ranges with the same rule stand side by side, so that fewer comparisons
    find the rule of a step.
    """

    def order(part: KeyRange) -> int:
        return rules.index(part.residual) if part.residual in rules else -1

    rows = [sorted((p for p in g if p.kind is kind), key=order) for g in groups]
    width = max((len(row) for row in rows), default=0)
    return tuple(
        tuple(row[at] if at < len(row) else None for row in rows) for at in range(width)
    )


def range_lines(slots: Slots) -> list[str]:
    """The lines before the loop: the ranges of this head, and where each slot ends."""
    if len(slots.kernel.covers) > 1 and not slots.every:
        return ["# no head sees anything"]
    return [*count_lines(slots), *end_lines(slots)]


def count_lines(slots: Slots) -> list[str]:
    """Where each slot of this head starts, and how many tiles are in it."""
    covers = slots.kernel.covers
    printer = printer_of(slots.kernel, _RANGE_NAMES)
    lines: list[str] = []
    if len(covers) == 1:
        lines += _group_lines(slots, 0, printer, 0)
    else:
        for at, cover in enumerate(covers):
            if at < len(covers) - 1 or has_lists(slots.kernel):
                condition = heads_condition(cover.heads)
                lines += printer.assign(f"in_group_{at}", condition, slots.indent)
        for at in range(len(covers)):
            last = at == len(covers) - 1
            word = "else" if last else f"{'elif' if at else 'if'} in_group_{at}"
            body = _group_lines(slots, at, printer, 4)
            lines += [f"{word}:", *("    " + line for line in body)]
    if has_lists(slots.kernel) and len(covers) > 1:
        listed = [f"in_group_{i}" for i, c in enumerate(covers) if is_listed(c)]
        lines.append(f"is_listed = {' | '.join(listed)}")
    return lines


def end_lines(slots: Slots) -> list[str]:
    """Where each slot ends among the steps of its kind."""
    lines = []
    for kind, columns in (("partial", slots.partial), ("full", slots.full)):
        before = ""
        for at in range(len(columns)):
            lines.append(f"{kind}_{at}_end = {before}{kind}_{at}_count")
            before = f"{kind}_{at}_end + "
        if columns:
            lines.append(f"n_{kind} = {kind}_{len(columns) - 1}_end")
    return lines


def _group_lines(slots: Slots, group: int, printer: Printer, indent: int) -> list[str]:
    """The counts of one group's slots."""
    cover = slots.kernel.covers[group]
    lines = [f"# {place(cover.span)}", f"# heads {print_heads(cover.heads)}"]
    if is_listed(cover):
        head = "(b * list_batch + h)" if slots.by_element else "list_head"
        lines.append("# no closed form: tiles listed for the sizes of the call")
        if not slots.by_element:
            lines += [
                "list_head = h",
                'if SEQUENCES != "none":',
                "    list_head = b * HEADS + h",
            ]
        lines += [
            f"at = {head} * n_k_tiles + kt"
            if slots.reverse
            else f"at = {head} * n_q_tiles + qt - first_q_tile",
            "first_listed = tl.load(list_first + at)",
        ]
    elif has_lists(slots.kernel):
        lines.append("first_listed = tl.zeros([], tl.int64)")
    for name, column in zip(slots.names, slots.every, strict=True):
        part = column[group]
        if is_listed(cover) and part is not None:
            counts = f"list_{part.kind.value}"
            lines += [f"{name}_lo = 0", f"{name}_count = tl.load({counts} + at)"]
        elif part is None:
            lines += [f"{name}_lo = 0", f"{name}_count = 0"]
        else:
            lines += _count_lines(slots, name, part, printer, slots.indent + indent)
        if shared_step(column) is None:
            lines.append(f"{name}_step = {part.step if part else 1}")
        if name.startswith("partial") and shared_rule(slots, column) is None:
            lines.append(f"{name}_rule = {rule_of(slots, part)}")
    return lines


def _count_lines(
    slots: Slots, name: str, part: KeyRange, printer: Printer, at: int
) -> list[str]:
    """`lo` and `count` of one range."""
    step = "" if part.step == 1 else f", {part.step}"
    guard = "" if part.guard == Truth(True) else f" if {print_expr(part.guard)}"
    bounds = f"{print_expr(part.lo)}, {print_expr(part.hi)}{step}"
    lines = [f"# {part.kind.value}: {slots.tile} in range({bounds}){guard}"]
    first, last = (
        ("first_q_tile", "end_q_tile") if slots.reverse else ("0", "n_k_tiles")
    )
    for end, expr in (("lo", part.lo), ("hi", part.hi)):
        lines += printer.assign(f"{name}_{end}", expr, at)
        if end == "lo" and slots.reverse:
            lines.append(f"{name}_lo = first_from({name}_lo, {part.step}, {first})")
        if needs_64_bits(expr, printer.box):
            clipped = f"tl.minimum(tl.maximum({name}_{end}, {first}), {last})"
            lines.append(f"{name}_{end} = {clipped}.to(tl.int32)")
    count = f"count_tiles({name}_lo, {name}_hi, {part.step}, {last})"
    lines.append(f"{name}_count = {count}")
    if guard:
        lines += printer.assign(f"{name}_if", part.guard, at)
        lines.append(f"{name}_count = tl.where({name}_if, {name}_count, 0)")
    return lines


def rule_of(slots: Slots, part: KeyRange | None) -> int:
    if part is None or part.residual not in slots.rules:
        return -1
    return slots.rules.index(part.residual)


def shared_rule(slots: Slots, column: Sequence[KeyRange | None]) -> int | None:
    return _shared(column, lambda part: rule_of(slots, part))


def shared_step(column: Sequence[KeyRange | None]) -> int | None:
    return _shared(column, lambda part: part.step)


def _shared(
    column: Sequence[KeyRange | None], value: Callable[[KeyRange], int]
) -> int | None:
    """The value that all ranges in a slot have in common, if they do."""
    values = {value(part) for part in column if part is not None}
    return values.pop() if len(values) == 1 else None


def heads_condition(heads: Sequence[int]) -> BoolExpr:
    """`h` is one of `heads`, with few comparisons."""
    ordered = sorted(heads)
    step = ordered[1] - ordered[0] if len(ordered) > 2 else 1
    if step > 1 and ordered == list(range(ordered[0], ordered[-1] + 1, step)):
        residue = Binary(IntOp.MOD, HEAD, Const(step))
        same = Compare(CompareOp.EQ, residue, Const(ordered[0] % step))
        return All((same, _between(ordered[0], ordered[-1])))
    runs: list[list[int]] = []
    for head in ordered:
        if runs and runs[-1][1] == head - 1:
            runs[-1][1] = head
        else:
            runs.append([head, head])
    return Any(tuple(_between(lo, hi) for lo, hi in runs))


def _between(lo: int, hi: int) -> BoolExpr:
    if lo == hi:
        return Compare(CompareOp.EQ, HEAD, Const(lo))
    least = Compare(CompareOp.GE, HEAD, Const(lo))
    most = Compare(CompareOp.LE, HEAD, Const(hi))
    return most if lo == 0 else All((least, most))


def printer_of(kernel: Kernel, names: dict[Axis, str]) -> Printer:
    return Printer(names, box_of(kernel))


def box_of(kernel: Kernel) -> Box:
    """What the names of a kernel can be."""
    attention, schedule = kernel.attention, kernel.schedule
    params = tuple(param.name for param in attention.params)
    return kernel_box(attention.heads, schedule.block_q, schedule.block_k, params)


def place(span: Span) -> str:
    """`file.pat:3: the line`, printable, so that it can be a comment."""
    line = span.line
    name = PurePath(span.source.name).name
    return printable(f"{name}:{line}: {span.source.line_text(line).strip()}").strip()


def printable(text: str) -> str:
    """`text` with every control, format and separator character escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )
