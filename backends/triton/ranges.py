"""The key tiles of a query tile, as Triton text.

In: a kernel. Out: the lines that count each range's tiles, pick the tile of a step
and apply the mask. Not its job: the rest of the module (`emit`), expressions (`expr`).

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

from patternc.backends.triton.expr import Printer, kernel_box, needs_64_bits
from patternc.backends.triton.template import fill
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

_RANGE_NAMES = {Axis.QUERY_TILE: "qt", Axis.HEAD: "h", Axis.LENGTH: "n_k"}
_MASK_NAMES = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "n_k"}
_INFINITE = 'float("-inf")'

# Indents of the holes in forward.py.tmpl.
_AT_RANGES, _AT_LOOP = 4, 8


@dataclass(frozen=True, slots=True)
class Slots:
    """What the head groups put into each slot; None where a group has nothing.

    `rules` are the distinct masks of PARTIAL tiles.
    """

    kernel: Kernel
    partial: tuple[tuple[KeyRange | None, ...], ...]
    full: tuple[tuple[KeyRange | None, ...], ...]
    rules: tuple[BoolExpr, ...]

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


def assign_slots(kernel: Kernel) -> Slots:
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
    covers = slots.kernel.covers
    printer = _printer(slots.kernel, _RANGE_NAMES)
    lines: list[str] = []
    if len(covers) == 1:
        lines += _group_lines(slots, 0, printer, 0)
    else:
        for at, cover in enumerate(covers):
            if at < len(covers) - 1 or has_lists(slots.kernel):
                condition = heads_condition(cover.heads)
                lines += printer.assign(f"in_group_{at}", condition, _AT_RANGES)
        for at in range(len(covers)):
            last = at == len(covers) - 1
            word = "else" if last else f"{'elif' if at else 'if'} in_group_{at}"
            body = _group_lines(slots, at, printer, 4)
            lines += [f"{word}:", *("    " + line for line in body)]
    if has_lists(slots.kernel) and len(covers) > 1:
        listed = [f"in_group_{i}" for i, c in enumerate(covers) if is_listed(c)]
        lines.append(f"is_listed = {' | '.join(listed)}")
    return [*lines, *_end_lines(slots)]


def _end_lines(slots: Slots) -> list[str]:
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
        lines += [
            "# no closed form: tiles listed for the sizes of the call",
            "at = h * n_q_tiles + qt - first_q_tile",
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
            lines += _count_lines(name, part, printer, _AT_RANGES + indent)
        if _shared_step(column) is None:
            lines.append(f"{name}_step = {part.step if part else 1}")
        if name.startswith("partial") and _shared_rule(slots, column) is None:
            lines.append(f"{name}_rule = {_rule(slots, part)}")
    return lines


def _count_lines(name: str, part: KeyRange, printer: Printer, at: int) -> list[str]:
    """`lo` and `count` of one range."""
    step = "" if part.step == 1 else f", {part.step}"
    guard = "" if part.guard == Truth(True) else f" if {print_expr(part.guard)}"
    bounds = f"{print_expr(part.lo)}, {print_expr(part.hi)}{step}"
    lines = [f"# {part.kind.value}: kt in range({bounds}){guard}"]
    for end, expr in (("lo", part.lo), ("hi", part.hi)):
        lines += printer.assign(f"{name}_{end}", expr, at)
        if needs_64_bits(expr, printer.box):
            clipped = f"tl.minimum(tl.maximum({name}_{end}, 0), n_k_tiles)"
            lines.append(f"{name}_{end} = {clipped}.to(tl.int32)")
    count = f"count_tiles({name}_lo, {name}_hi, {part.step}, n_k_tiles)"
    lines.append(f"{name}_count = {count}")
    if guard:
        lines += printer.assign(f"{name}_if", part.guard, at)
        lines.append(f"{name}_count = tl.where({name}_if, {name}_count, 0)")
    return lines


def loop_lines(slots: Slots) -> list[str]:
    """The loops over the key tiles of the query tile, PARTIAL ones first."""
    lines: list[str] = []
    for kind, columns in (
        (TileKind.PARTIAL, slots.partial),
        (TileKind.FULL, slots.full),
    ):
        if columns:
            holes = {
                "key_tile": _key_tile_lines(slots, kind),
                "mask": _mask_lines(slots, kind),
            }
            head = "for t in tl.range(FIRST, LAST):"
            loop = fill("loop", holes).replace(head, _loop_head(slots, kind), 1)
            lines += [f"# {kind.name} tiles", *loop.rstrip("\n").split("\n")]
    return lines


def _loop_head(slots: Slots, kind: TileKind) -> str:
    """Steps count through a list from its start, else each kind's from 0."""
    if kind is TileKind.FULL and has_lists(slots.kernel):
        return "for t in tl.range(n_partial, n_partial + n_full):"
    return f"for t in tl.range(0, n_{kind.value}):"


def _key_tile_lines(slots: Slots, kind: TileKind) -> list[str]:
    """The lines that turn a step `t` into its key tile `kt`."""
    covers = slots.kernel.covers
    listed = ["kt = tl.load(list_tiles + first_listed + t)"]
    if all(is_listed(cover) for cover in covers):
        return listed
    columns = slots.partial if kind is TileKind.PARTIAL else slots.full
    names = [f"{kind.value}_{at}" for at in range(len(columns))]
    # In a kernel with lists the steps of FULL tiles go on from the PARTIAL ones.
    goes_on = kind is TileKind.FULL and has_lists(slots.kernel)
    lines = ["step = t - n_partial"] if goes_on else []
    step_name = "step" if goes_on else "t"
    for at in reversed(range(len(names))):
        step = _shared_step(columns[at])
        since = f"({step_name} - {names[at - 1]}_end)" if at else step_name
        if step is None:
            since = f"{since} * {names[at]}_step"
        elif step != 1:
            since = f"{since} * {step}"
        else:
            since = since.strip("()")
        tile = f"{names[at]}_lo + {since}"
        if at < len(names) - 1:
            tile = f"tl.where({step_name} < {names[at]}_end, {tile}, kt)"
        lines.append(f"kt = {tile}")
    if has_lists(slots.kernel):
        lines += [
            "listed_at = list_tiles + first_listed + t",
            "listed_tile = tl.load(listed_at, mask=is_listed, other=0)",
            "kt = tl.where(is_listed, listed_tile, kt)",
        ]
    return lines


def _mask_lines(slots: Slots, kind: TileKind) -> list[str]:
    """The lines that hide invisible pairs in PARTIAL tiles and keys beyond `n_k`."""
    keys = "k = k0 + tl.arange(0, BLOCK_K)[None, :]"
    inside = f"s = tl.where(k < n_k, s, {_INFINITE})"
    if kind is TileKind.FULL:
        return ["if k0 + BLOCK_K > n_k:", f"    {keys}", f"    {inside}"]
    lines = [keys, inside]
    same = all(
        part is None or part.residual == slots.rules[0]
        for column in slots.partial
        for part in column
        if slots.rules
    )
    if not same:
        lines += _rule_lines(slots)
    printer = _printer(slots.kernel, _MASK_NAMES)
    for at, rule in enumerate(slots.rules):
        body = [f"# {line}" for line in _places(slots, rule)]
        body.append(f"# tests {print_expr(rule)}")
        body += printer.assign("keep", rule, _AT_LOOP + (0 if same else 4))
        body.append(f"s = tl.where(keep, s, {_INFINITE})")
        if not same:
            body = [f"if rule == {at}:", *("    " + line for line in body)]
        lines += body
    return lines


def _rule_lines(slots: Slots) -> list[str]:
    """The lines that find the rule of a step, -1 for none."""
    values = []
    for at, column in enumerate(slots.partial):
        shared = _shared_rule(slots, column)
        values.append(f"partial_{at}_rule" if shared is None else str(shared))
    lines, before = [], "-1"
    for at in reversed(range(len(values))):
        is_same = at + 1 < len(values) and values[at] == values[at + 1]
        if not (is_same and not values[at].startswith("partial")):
            lines.append(
                f"rule = tl.where(t < partial_{at}_end, {values[at]}, {before})"
            )
        before = "rule"
    return lines


def _places(slots: Slots, rule: BoolExpr) -> list[str]:
    """The places whose masks became this rule, each once."""
    found = [
        place(part.span)
        for column in slots.partial
        for part in column
        if part is not None and part.residual == rule
    ]
    return list(dict.fromkeys(found))


def _rule(slots: Slots, part: KeyRange | None) -> int:
    if part is None or part.residual not in slots.rules:
        return -1
    return slots.rules.index(part.residual)


def _shared_rule(slots: Slots, column: Sequence[KeyRange | None]) -> int | None:
    return _shared(column, lambda part: _rule(slots, part))


def _shared_step(column: Sequence[KeyRange | None]) -> int | None:
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


def _printer(kernel: Kernel, names: dict[Axis, str]) -> Printer:
    attention, schedule = kernel.attention, kernel.schedule
    params = tuple(param.name for param in attention.params)
    box = kernel_box(attention.heads, schedule.block_q, schedule.block_k, params)
    return Printer(names, box)


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
