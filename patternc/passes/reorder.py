"""Token orders where the program gives none.

In: an attention. Out: the same meaning, and an order for each head group whose mask
touches clearly fewer tiles in it. Not its job: what an order is (`plan.order`), and
orders that the program gives, which stay.

What is tried follows from the mask and the layout: strides that the mask divides by,
and for each segment of several axes its axis orders and boxes of about one query tile.
Each is judged on some query tiles at one length: first by intervals alone, then the
best few exactly. An order is taken only if it saves more than `GAIN` of the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations, permutations, product
from typing import ClassVar

from patternc.ir.nodes import (
    Attention,
    AxesOrder,
    Axis,
    Binary,
    BoolExpr,
    Const,
    HeadCase,
    IntOp,
    Layout,
    OrderCase,
    PhaseOrder,
    Segment,
    TileOrder,
    TokenOrder,
)
from patternc.ir.text import print_heads, print_order
from patternc.ir.walk import axes_of, params_of, subexpressions, tables_of
from patternc.plan.kernel import Schedule
from patternc.plan.work import Workload

GAIN = 0.1
"""The least share of the tiles that an order must save: a gather is not free."""

LENGTH = 16_384
"""The length that orders are judged at where no layout gives one."""

MAX_LENGTH = 1 << 18
"""Longer layouts are not searched."""

MAX_STRIDES = 8
"""Strides that are tried, the smallest ones."""

_SCREENED_ROWS = 24  # query tiles for every order that is tried
_JUDGED_ROWS = 64  # query tiles for the best few, and for the order of the program
_FEWEST_ROWS = 8
_JUDGED = 3
_LOOKED_AT = 1 << 23  # pairs that judging one order may look at, about

Order = tuple[OrderCase, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a search: the order, if any, and the shares of tiles visited."""

    order: Order
    tried: int
    length: int
    plain: float = 1.0
    found: float = 1.0


@dataclass(frozen=True)
class Reorder:
    """Search an order for each head group that has none."""

    name: ClassVar[str] = "reorder"
    schedule: Schedule = field(default_factory=Schedule)

    def __call__(self, attention: Attention) -> Attention:
        """Add the orders that were found; nothing else changes."""
        found = tuple(
            order
            for case in attention.cases
            for order in self._finding(case, attention).order
        )
        return replace(attention, orders=(*attention.orders, *found))

    def notes(self, attention: Attention) -> tuple[str, ...]:
        """For each head group that was searched what was found and what it gains."""
        lines = []
        tile = f"{self.schedule.block_q} x {self.schedule.block_k}"
        for case in attention.cases:
            finding = self._finding(case, attention)
            if finding.tried == 0:
                continue
            who = f"heads {print_heads(case.heads)}"
            where = f"{tile} tiles, N = {finding.length}"
            if not finding.order:
                lines.append(
                    f"{who}: none of {finding.tried} orders saves more than "
                    f"{GAIN:.0%} of the tiles ({where}); the tokens stay as they are"
                )
                continue
            orders = " and ".join(
                f"order {print_order(order, attention.layout)}"
                for order in finding.order
            )
            lines.append(
                f"{who}: {orders} visits {finding.found:.1%} of the tiles instead of "
                f"{finding.plain:.1%} ({where}; {finding.tried} orders tried)"
            )
        return tuple(lines)

    def _finding(self, case: HeadCase, attention: Attention) -> Finding:
        """The search for one head group; nothing is searched for data or by halves."""
        nothing = Finding((), 0, 0)
        if any(set(order.heads) & set(case.heads) for order in attention.orders):
            return nothing
        if tables_of(case.mask) or not case.heads:
            return nothing
        values = {param.name: param.default for param in attention.params}
        known = {name: value for name, value in values.items() if value is not None}
        if not params_of(case.mask) <= set(known):
            return nothing
        heads = case.heads
        if Axis.HEAD in axes_of(case.mask):
            heads = tuple(sorted({heads[0], heads[len(heads) // 2]}))
        else:
            heads = heads[:1]
        found = _search(
            case.mask,
            heads,
            attention.layout,
            self.schedule,
            tuple(sorted(known.items())),
        )
        order = tuple(
            replace(item, heads=case.heads, span=case.span) for item in found.order
        )
        return replace(found, order=order)


@lru_cache(maxsize=256)
def _search(
    mask: BoolExpr,
    heads: tuple[int, ...],
    layout: Layout | None,
    schedule: Schedule,
    params: tuple[tuple[str, int], ...],
) -> Finding:
    """The best order of a mask, each segment on its own after the ones before."""
    length = layout.size if layout is not None else LENGTH
    if length > MAX_LENGTH:
        return Finding((), 0, length)
    values: Mapping[str, int] = dict(params)
    work = Workload(mask, heads, length, layout, schedule, values)
    best: Order = ()
    tried = 0
    for steps in _candidates(mask, layout, schedule):
        tried += len(steps)
        best = _better(work, best, steps)
    rows = _rows(work, best)
    plain = work.visited_share((), rows) if best else 1.0
    found = work.visited_share(best, rows) if best else 1.0
    if found > plain * (1 - GAIN):
        best = ()
    return Finding(best, tried, length, plain, found)


def _better(work: Workload, best: Order, steps: list[OrderCase]) -> Order:
    """`best`, or `best` with the one more order that visits clearly fewer tiles."""
    bounds = [work.share_at_most((*best, step), _SCREENED_ROWS) for step in steps]
    ranked = sorted(range(len(steps)), key=lambda at: (bounds[at], at))[:_JUDGED]
    least = work.visited_share(best, _rows(work, best))
    bar = least * (1 - GAIN)
    chosen = best
    for at in ranked:
        order = (*best, steps[at])
        share = work.visited_share(order, _rows(work, order))
        if share < min(bar, least):
            chosen, least = order, share
    return chosen


def _rows(work: Workload, order: Order) -> int:
    """How many query tiles to judge an order by: fewer where it is costly."""
    schedule = work.schedule
    row = -(-work.length // schedule.block_k) * schedule.block_q * schedule.block_k
    share = work.share_at_most(order, _SCREENED_ROWS)
    affordable = int(_LOOKED_AT / max(1.0, share * row * len(work.heads)))
    return max(_FEWEST_ROWS, min(_JUDGED_ROWS, affordable))


def _candidates(
    mask: BoolExpr, layout: Layout | None, schedule: Schedule
) -> Iterator[list[OrderCase]]:
    """What may help, the choices for one segment together."""
    segments = [] if layout is None else [s for s in layout.segments if s.axes[1:]]
    if not segments:
        strides = _strides(mask)
        if strides:
            yield [OrderCase((), None, PhaseOrder(stride)) for stride in strides]
    for segment in segments:
        choices: list[TokenOrder] = [*_axes_orders(segment)]
        choices += _tile_orders(segment, schedule)
        yield [OrderCase((), segment.name, order) for order in choices]


def _strides(mask: BoolExpr) -> list[int]:
    """The moduli of the mask and products of two, the smallest ones."""
    moduli = {
        abs(node.rhs.value)
        for node in subexpressions(mask)
        if isinstance(node, Binary)
        and node.op is IntOp.MOD
        and isinstance(node.rhs, Const)
        and axes_of(node.lhs) & {Axis.QUERY, Axis.KEY}
    }
    products = {a * b for a, b in combinations(sorted(moduli), 2)}
    useful = (stride for stride in moduli | products if 2 <= stride <= LENGTH // 2)
    return sorted(useful)[:MAX_STRIDES]


def _axes_orders(segment: Segment) -> list[AxesOrder]:
    names = tuple(name for name, _ in segment.axes)
    return [AxesOrder(order) for order in permutations(names) if order != names]


def _tile_orders(segment: Segment, schedule: Schedule) -> list[TileOrder]:
    """Boxes of about one query tile: a power of two tokens along every axis."""
    bits = schedule.block_q.bit_length() - 1
    sizes = [size for _, size in segment.axes]
    found: dict[tuple[int, ...], None] = {}
    for parts in product(range(bits + 1), repeat=len(sizes)):
        box = tuple(min(2**p, size) for p, size in zip(parts, sizes, strict=True))
        if sum(parts) == bits and 2 * math.prod(box) > schedule.block_q:
            found[box] = None
    return [TileOrder(box) for box in found]
