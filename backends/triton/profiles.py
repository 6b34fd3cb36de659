"""Tile lists that follow data or an order, as PyTorch text.

In: a kernel. Out: for each cover whose tiles are listed a function that judges pairs of
nodes of tiles, and a table of these covers. Not its job: the method, which is in
`profile.py.tmpl` and mirrors `plan.profile` and `plan.quadtree`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from patternc.analysis.interval import Box
from patternc.backends.triton.bounds import BoundsPrinter
from patternc.backends.triton.expr import TorchPrinter, folded
from patternc.backends.triton.features import labels_of, reads_of
from patternc.backends.triton.ranges import is_listed, place
from patternc.ir.floats import inputs_of
from patternc.ir.nodes import (
    HEAD,
    All,
    Any,
    Attention,
    AxesOrder,
    Axis,
    AxisKind,
    BoolExpr,
    Compare,
    CurveOrder,
    Expr,
    FloatExpr,
    FromInt,
    LabelOrder,
    Layout,
    Not,
    OrderCase,
    PhaseOrder,
    Read,
    Segment,
    TileOrder,
    Truth,
)
from patternc.ir.selection import MapNumber, MapValue, Selection, Sharing
from patternc.ir.walk import axes_of, children, params_of, tables_of
from patternc.plan.kernel import Kernel, TileCover
from patternc.plan.sides import Sides, sides_of

_TOKENS = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}
_PAIR = frozenset({Axis.QUERY, Axis.KEY})
_NODES = {Axis.HEAD: "head", Axis.LENGTH: "keys"}


Value = str | int | None | Mapping[str, "Value"] | Sequence["Value"]


@dataclass(frozen=True)
class ProfilePrinter(BoundsPrinter):
    """Bounds of pairs of nodes: one-sided parts and tables have names already.

    `tables` are searched, `cells` hold the bounds of every pair of tiles.
    """

    parts: dict[Expr, str] = field(default_factory=dict)
    tables: dict[Read, str] = field(default_factory=dict)
    cells: dict[Read, str] = field(default_factory=dict)

    def _parts(self, expr: Expr) -> Iterator[Expr]:
        pending = [expr]
        while pending:
            node = pending.pop()
            yield node
            if node not in self.parts and not isinstance(node, Read):
                pending += reversed(children(node))

    def _call_text(self, expr: Expr) -> str:
        if expr in self.hoisted:
            return self.hoisted[expr]
        if expr in self.parts:
            name = self.parts[expr]
            return f"truth_of({name})" if is_truth(expr) else name
        if isinstance(expr, Read) and expr in self.cells:
            return self.cells[expr]
        if isinstance(expr, Read):
            boxes = [
                self._call_text(index) for index in expr.indices if is_searched(index)
            ]
            return f"look_up({', '.join([self.tables[expr], 'e', *boxes])})"
        return super()._call_text(expr)


def is_truth(expr: Expr) -> bool:
    """Whether a part is a truth value."""
    return isinstance(expr, Truth | Compare | All | Any | Not)


def is_searched(index: Expr) -> bool:
    """Whether an index of a two-sided read differs within a pair of nodes."""
    return bool(axes_of(index) & _PAIR)


def needed(kernel: Kernel) -> list[tuple[int, TileCover]]:
    """The covers that some call lists."""
    return [
        (at, cover)
        for at, cover in enumerate(kernel.covers)
        if is_listed(cover) or cover.order
    ]


def is_chosen(*kernels: Kernel) -> bool:
    """Whether some cover that is listed reads what a selection chose.

    Its lists are made at every call, so that no call may wait for them.
    """
    return any(
        tables_of(cover.mask) & {one.table for one in kernel.attention.selections}
        for kernel in kernels
        for _, cover in needed(kernel)
    )


def list_inputs(kernel: Kernel) -> list[str]:
    """The inputs that tile lists follow, in the order of declaration."""
    used = {
        name
        for _, cover in needed(kernel)
        for name in (*tables_of(cover.mask), *labels_of(cover))
    }
    return [item.name for item in kernel.attention.inputs if item.name in used]


def judge_function(at: int, cover: TileCover, box: Box, by_tile: bool) -> str:
    """The text of `judge_<at>`; `by_tile`: all pairs of tiles are judged, no nodes."""
    mask = folded(cover.mask)
    sides = sides_of(mask, box)  # type: ignore[arg-type]
    names = {part: f"query_{i}" for i, part in enumerate(sides.query)}
    names |= {part: f"key_{i}" for i, part in enumerate(sides.key)}
    reads = two_sided(sides.mask, names)
    pyramids = {x: name for x, name in reads.items() if not by_tile or mixes(x)}
    cells = {x: name for x, name in reads.items() if x not in pyramids}
    seen = parts_outside(sides.mask, cells)
    names = {part: name for part, name in names.items() if part in seen}
    lines = _before(cover, sides, names, pyramids, cells, box, by_tile)
    inner = ["head, keys = exactly(heads[e]), exactly(length)"]
    for side, parts in (("q", sides.query), ("k", sides.key)):
        for name in [names[part] for part in parts if part in names]:
            inner.append(f"{name}_at = known({name}, level, e, {side})")
    printer = ProfilePrinter(
        _NODES,
        box,
        "exactly(p_{})",
        parts={part: f"{name}_at" for part, name in names.items()},
        tables=pyramids,
        cells=cells,
    )
    inner += [*printer.assign("seen", sides.mask, 8), "return seen"]
    body = [
        '"""Whether the mask may be true, and may be false, for pairs of nodes."""',
        *lines,
        "",
        "def judge(level, e, q, k):",
        *("    " + line for line in inner),
        "",
        "return judge",
    ]
    head = f"def judge_{at}(q, k, b, heads, length, values, tables):"
    return "\n".join([head, *(f"    {line}" if line else "" for line in body), ""])


def _before(
    cover: TileCover,
    sides: Sides,
    names: dict[Expr, str],
    pyramids: dict[Read, str],
    cells: dict[Read, str],
    box: Box,
    by_tile: bool,
) -> list[str]:
    """What is known of each side alone, once for all pairs."""
    lines = [f"# {place(cover.span)}"]
    lines += [
        f'p_{x} = as_tensor(values["{x}"])' for x in sorted(params_of(sides.mask))
    ]
    lines += [f't_{x} = tables["{x}"]' for x in sorted(tables_of(sides.mask))]
    lines.append("length = as_tensor(length)")
    printer = TorchPrinter(_TOKENS, box)
    for read, name in pyramids.items():
        flat = replace(printer, names={**_TOKENS, Axis.HEAD: "heads"})
        places = [
            "None" if is_searched(index) else flat.print(index)
            for index in read.indices
        ]
        lines.append(f"{name} = pyramid(t_{read.table}, b, [{', '.join(places)}])")
    lines.append("element, b, h = b, b[:, None, None], heads[:, None, None]")
    for read, name in cells.items():
        lines += _cell_lines(read, name, printer)
    for part, name in names.items():
        lines += printer.assign(name, part, 4)
        values = f"{name}.to(torch.int64)" if is_truth(part) else name
        made = "[of_tiles({}, {})]" if by_tile else "profile({}, {})"
        lines.append(f"{name} = {made.format(values, sides.by_step)}")
    return lines


def parts_outside(mask: BoolExpr, cells: Mapping[Read, str]) -> set[Expr]:
    """What a mask says outside of reads whose bounds are known whole."""
    found: set[Expr] = set()
    pending: list[Expr] = [mask]
    while pending:
        node = pending.pop()
        found.add(node)
        if node not in cells:
            pending += children(node)
    return found


def mixes(read: Read) -> bool:
    """Whether some index follows queries and keys at once."""
    return any(len(axes_of(i) & _PAIR) > 1 for i in read.indices)


def _cell_lines(read: Read, name: str, printer: TorchPrinter) -> list[str]:
    """The bounds of a read whose every index follows one side."""
    lines, places = [], []
    for at, index in enumerate(read.indices):
        own = axes_of(index) & _PAIR
        side = "".join(_TOKENS[axis] for axis in own)
        lines += printer.assign(f"{name}_{at}", index, 4)
        places.append(f'    ("{side}", {name}_{at}),')
    return [
        *lines,
        f"{name} = cells(",
        f"    t_{read.table},",
        "    element,",
        *places,
        ")",
    ]


def two_sided(mask: BoolExpr, names: dict[Expr, str]) -> dict[Read, str]:
    """The reads outside of one-sided parts."""
    found: dict[Read, str] = {}
    pending: list[Expr] = [mask]
    while pending:
        node = pending.pop()
        if node in names:
            continue
        if isinstance(node, Read):
            found.setdefault(node, f"table_{len(found)}")
        pending += children(node)
    return found


def cover_table(kernel: Kernel, ordered: bool) -> list[Value]:
    """What the list builder must know of each cover that it lists."""
    attention = kernel.attention
    heads_of = {
        item.name: any(axis.kind is AxisKind.HEAD for axis in item.axes)
        for item in attention.inputs
    }
    found: list[Value] = []
    for at, cover in needed(kernel):
        if not (is_listed(cover) or ordered):
            continue
        found.append(
            {
                "heads": list(cover.heads),
                "alike": alike(attention, cover.mask),
                "order": order_literal(cover.order, cover.layout),
                "order_per_head": any(heads_of[name] for name in labels_of(cover)),
                "judge": at,
            }
        )
    return found


def alike(attention: Attention, mask: BoolExpr) -> int:
    """How many heads, one after another, have the same tiles; 0 for all heads.

    Where heads differ by what a selection chose for groups of them alone, a group has.
    """
    by_group = {
        one.table
        for one in attention.selections
        if one.shared is not Sharing.ALONE and _is_same_for_heads(one)
    }
    reads = {
        read: read.table
        for read in reads_of(mask)
        if read.table in by_group
        and all(x == HEAD or Axis.HEAD not in axes_of(x) for x in read.indices)
    }
    if HEAD in parts_outside(mask, reads):
        return 1
    return attention.group_size if Axis.HEAD in axes_of(mask) else 0


def _is_same_for_heads(selection: Selection) -> bool:
    """Whether budgets and `always` members are the same for heads that share numbers."""
    amounts = (selection.amount, selection.least, selection.most)
    always = selection.always
    return (always is None or Axis.HEAD not in axes_of(always)) and all(
        amount is None
        or isinstance(amount, MapNumber)
        or (isinstance(amount, MapValue) and _is_the_same(amount.value))
        for amount in amounts
    )


def _is_the_same(value: FloatExpr) -> bool:
    """Whether a budget is an integer that neither a head nor an input changes."""
    if not isinstance(value, FromInt) or inputs_of(value):
        return False
    return Axis.HEAD not in axes_of(value.operand)


def order_literal(orders: Sequence[OrderCase], layout: Layout | None) -> list[Value]:
    """(start, size, kind, details) for each segment that is ordered."""
    segments = {s.name: s for s in (layout.segments if layout is not None else ())}
    whole = Segment("all", 0, layout.size if layout is not None else 0)
    found: list[Value] = []
    for case in orders:
        own = whole if case.segment is None else segments[case.segment]
        size = own.size if own.size else None
        sizes = [n for _, n in own.axes]
        names = [name for name, _ in own.axes]
        order = case.order
        match order:
            case PhaseOrder():
                details: list[Value] = ["phase", order.stride]
            case LabelOrder():
                details = ["labels", order.table]
            case AxesOrder():
                axes = [names.index(axis) for axis in order.axes]
                details = ["axes", sizes, axes]
            case TileOrder():
                details = ["tile", sizes, list(order.sizes)]
            case CurveOrder():
                details = [order.curve.value, sizes]
        found.append([own.start, size, *details])
    return found
