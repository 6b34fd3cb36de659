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
from patternc.backends.triton.features import labels_of
from patternc.backends.triton.ranges import is_listed, place
from patternc.ir.nodes import (
    All,
    Any,
    AxesOrder,
    Axis,
    AxisKind,
    BoolExpr,
    Compare,
    CurveOrder,
    Expr,
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
from patternc.ir.walk import axes_of, children, params_of, tables_of
from patternc.plan.kernel import Kernel, TileCover
from patternc.plan.sides import Sides, sides_of

_TOKENS = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}
_NODES = {Axis.HEAD: "head", Axis.LENGTH: "keys"}


Value = str | int | None | Mapping[str, "Value"] | Sequence["Value"]


@dataclass(frozen=True)
class ProfilePrinter(BoundsPrinter):
    """Bounds of pairs of nodes: one-sided parts and tables have names already."""

    parts: dict[Expr, str] = field(default_factory=dict)
    tables: dict[Read, str] = field(default_factory=dict)

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
    return bool(axes_of(index) & {Axis.QUERY, Axis.KEY})


def needed(kernel: Kernel) -> list[tuple[int, TileCover]]:
    """The covers that some call lists."""
    return [
        (at, cover)
        for at, cover in enumerate(kernel.covers)
        if is_listed(cover) or cover.order
    ]


def list_inputs(kernel: Kernel) -> list[str]:
    """The inputs that tile lists follow, in the order of declaration."""
    used = {
        name
        for _, cover in needed(kernel)
        for name in (*tables_of(cover.mask), *labels_of(cover))
    }
    return [item.name for item in kernel.attention.inputs if item.name in used]


def judge_function(at: int, cover: TileCover, box: Box) -> str:
    """The text of `judge_<at>`."""
    mask = folded(cover.mask)
    sides = sides_of(mask, box)  # type: ignore[arg-type]
    names = {part: f"query_{i}" for i, part in enumerate(sides.query)}
    names |= {part: f"key_{i}" for i, part in enumerate(sides.key)}
    pyramids = two_sided(sides.mask, names)
    lines = _before(cover, sides, names, pyramids, box)
    inner = ["head, keys = exactly(heads[e]), exactly(length)"]
    for side, parts in (("q", sides.query), ("k", sides.key)):
        for part in parts:
            inner.append(f"{names[part]}_at = known({names[part]}, level, e, {side})")
    printer = ProfilePrinter(
        _NODES,
        box,
        "exactly(p_{})",
        parts={part: f"{name}_at" for part, name in names.items()},
        tables=pyramids,
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
    box: Box,
) -> list[str]:
    """What is known of each side alone, once for all pairs."""
    lines = [f"# {place(cover.span)}"]
    lines += [
        f'p_{x} = torch.tensor(values["{x}"])' for x in sorted(params_of(sides.mask))
    ]
    lines += [f't_{x} = tables["{x}"]' for x in sorted(tables_of(sides.mask))]
    lines.append("length = torch.tensor(length)")
    printer = TorchPrinter(_TOKENS, box)
    for read, name in pyramids.items():
        flat = replace(printer, names={**_TOKENS, Axis.HEAD: "heads"})
        places = [
            "None" if is_searched(index) else flat.print(index)
            for index in read.indices
        ]
        lines.append(f"{name} = pyramid(t_{read.table}, b, [{', '.join(places)}])")
    lines.append("b, h = b[:, None, None], heads[:, None, None]")
    for part, name in names.items():
        lines += printer.assign(name, part, 4)
        values = f"{name}.to(torch.int64)" if is_truth(part) else name
        lines.append(f"{name} = profile({values}, {sides.by_step})")
    return lines


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
                "per_head": Axis.HEAD in axes_of(cover.mask),
                "order": order_literal(cover.order, cover.layout),
                "order_per_head": any(heads_of[name] for name in labels_of(cover)),
                "judge": at,
            }
        )
    return found


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
