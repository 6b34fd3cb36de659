"""Which programs get a kernel for Hopper, on which tiles, for which head sizes.

In: a planned kernel. Out: a `Route`, or None; in words, why. Not its job: which calls
take that kernel, which is in the text of `runs_on_hopper`.

A program must be one that the kernel can compute (`refusal`), and the kernel must be
predicted to be faster than the portable one, by the model of `plan.choose` from
measured times: large tiles pay off where rows are long and tiles full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from patternc.backends.triton.features import features_of, reads_of
from patternc.backends.triton.ranges import has_lists, hides_pairs, is_listed
from patternc.backends.triton.stripes import striped
from patternc.ir.nodes import (
    Binary,
    BoolExpr,
    Const,
    Element,
    IntExpr,
    IntOp,
)
from patternc.ir.walk import subexpressions
from patternc.plan.choose import REFERENCE_LENGTH, predict
from patternc.plan.expand import live_tiles, query_tiles
from patternc.plan.kernel import Kernel
from patternc.plan.measured import HOPPER, MEASURED, Measured, Work
from patternc.plan.tiling import plan

BLOCK_Q = 128
"""Queries of a tile: two groups of four warps with 64 each."""

BLOCK_K = 128
"""Keys of a step."""

MULTIPROCESSORS = 132
"""Those of the device that was measured."""

LISTED_SIZES = (128,)
"""The head sizes for which it is taken where tiles follow inputs: not predicted.

Chosen blocks were measured: 9 % of the causal ones of 128K tokens, 32 heads and 128
columns took 21.5 ms, and 29.2 ms by the portable kernel. Chosen diagonals were measured,
too: by granules of 16 keys they took 72 ms, and 68 ms by the portable kernel.
"""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Milliseconds that the model predicts for a head size, here and portable."""

    own: float
    portable: float


@dataclass(frozen=True, slots=True)
class Route:
    """The attention on the tiles of the kernel for Hopper, and head size -> stages."""

    kernel: Kernel
    stages: dict[int, int]


def refusal(kernel: Kernel) -> str:
    """Why the kernel for Hopper cannot compute a program; nothing if it can."""
    attention, features = kernel.attention, features_of(kernel)
    block = attention.schedule
    if block is not None:
        return f"the schedule block in line {block.span.line} asks for tiles of its own"
    if features.is_ordered:
        return "its tokens have an order"
    if features.natural or features.has_epilogue or features.skipped:
        return "it has scores, weights, sinks, outputs or skipped heads"
    if striped(kernel) is not None:
        return _refusal_of_choices(kernel)
    if features.inputs:
        return _refusal_of_lists(kernel)
    if has_lists(kernel):
        return "its tiles have no closed form"
    if any(_divides(cover.mask) for cover in kernel.covers):
        return "its mask divides by a number that is no power of two: registers spill"
    return ""


def _refusal_of_choices(kernel: Kernel) -> str:
    """The same for a program of chosen blocks, which are all that it may visit."""
    own = striped(kernel)
    assert own is not None
    if own.has_lines:
        return "chosen diagonals and columns have loops of their own there"
    if len(own.covers) < len(kernel.covers):
        return "some heads have chosen blocks, and others tiles of their own"
    blocks = own.blocks
    assert blocks is not None
    if blocks.block_q % BLOCK_Q or blocks.block_k % BLOCK_K:
        sizes = f"{blocks.block_q} x {blocks.block_k}"
        return f"its blocks of {sizes} are no whole tiles of {BLOCK_Q} x {BLOCK_K}"
    return ""


def _refusal_of_lists(kernel: Kernel) -> str:
    """The same for a program whose tiles follow inputs."""
    if not all(is_listed(cover) for cover in kernel.covers):
        return "the tiles of some heads follow inputs, and of others ranges"
    elements = {item.name: item.element for item in kernel.attention.inputs}
    for cover in kernel.covers:
        for read in reads_of(cover.mask):
            if elements[read.table] is not Element.INT:
                return f"`{read.table}` chooses which keys are seen"
    return ""


def possible_route(kernel: Kernel) -> Route | None:
    """The kernel for Hopper, if it can compute the program, whatever it is worth."""
    if refusal(kernel):
        return None
    schedule = replace(kernel.schedule, block_q=BLOCK_Q, block_k=BLOCK_K)
    found = plan(kernel.attention, schedule)
    if has_lists(found) != has_lists(kernel):
        return None
    if hides_pairs(found) and not hides_pairs(kernel):  # no second launch keeps NaN out
        return None
    return Route(found, {item.columns: item.stages for item in HOPPER})


def chosen_route(kernel: Kernel) -> Route | None:
    """The kernel for Hopper, for the head sizes that it is predicted to be faster for."""
    route = possible_route(kernel)
    if route is None:
        return None
    if has_lists(route.kernel):
        own = {size: route.stages[size] for size in LISTED_SIZES}
        return replace(route, stages=own)
    stages = _faster(route, forecasts(kernel, route))
    return replace(route, stages=stages) if stages else None


def packaged_route(kernel: Kernel) -> Route | None:
    """The same for a package, which has portable kernels alone for what inputs choose."""
    return None if striped(kernel) is not None else chosen_route(kernel)


def _faster(route: Route, times: Mapping[int, Forecast]) -> dict[int, int]:
    """The head sizes that it is predicted to be faster for, and their stages."""
    return {
        columns: stages
        for columns, stages in route.stages.items()
        if columns in times and times[columns].own < times[columns].portable
    }


def walks(kernel: Kernel) -> bool:
    """Whether a program computes tile after tile.

    Shares are even where tiles of one query tile take as long for every head; what
    inputs choose is not known before.
    """
    is_alike = len(kernel.covers) == 1 and striped(kernel) is None
    return is_alike and not has_lists(kernel)


def forecasts(kernel: Kernel, route: Route) -> dict[int, Forecast]:
    """Head size -> times at the reference length, with 16 bits.

    Empty if the portable kernel's tile was not measured, or a run-time parameter has no
    value.
    """
    params = kernel.attention.params
    values = {item.name: item.default for item in params if item.default is not None}
    if len(values) < len(params):
        return {}
    found = {}
    for item in HOPPER:
        portable = _measured(kernel, item.columns)
        if portable is not None:
            own = predict(route.kernel, item, values)
            own += _tail(route.kernel, item, values)
            found[item.columns] = Forecast(own, predict(kernel, portable, values))
    return found


def in_words(kernel: Kernel) -> str:
    """What `explain` says of it."""
    reason = refusal(kernel)
    route = possible_route(kernel)
    if reason or route is None:
        reason = reason or "larger tiles are not FULL, or have no closed form"
        return f"the kernels above, as {reason}"
    where = f"tiles {BLOCK_Q} x {BLOCK_K}, where query tiles fill the device"
    if has_lists(route.kernel):
        sizes = " and ".join(map(str, LISTED_SIZES))
        listed = "its tiles are listed at a call"
        if striped(route.kernel) is not None:
            listed = (
                "its blocks are listed at a call, once for both kernels (measured: three"
                " quarters of the time of the kernels above)"
            )
        return (
            f"for 16 bits and head size {sizes} a forward kernel of its own, {where};"
            f" {listed}"
        )
    times = forecasts(kernel, route)
    if not times:
        return "the kernels above, as nothing predicts which is faster"
    tried = ", ".join(
        f"head size {columns} {item.own:.3f} ms against {item.portable:.3f} ms"
        for columns, item in sorted(times.items())
    )
    measured = f"measured: the model predicts {tried}"
    faster = _faster(route, times)
    if not faster:
        return f"the kernels above ({measured})"
    sizes = " and ".join(map(str, sorted(faster)))
    return (
        f"for 16 bits and head size {sizes} a forward kernel of its own, {where}"
        f" ({measured})"
    )


def _tail(kernel: Kernel, item: Measured, values: Mapping[str, int]) -> float:
    """Milliseconds that the first query tile, which starts last, takes beyond the mean.

    A tile has a multiprocessor of its own, where its times are those of a whole device.
    """
    layout = kernel.attention.layout
    length = REFERENCE_LENGTH if layout is None else layout.size
    rows = len(query_tiles(kernel.schedule, length, 0))
    most = 0.0
    for cover in kernel.covers:
        sizes = (length, length, 0)
        tiles = live_tiles(cover, kernel.schedule, cover.heads[0], *sizes, values)
        costs = np.where(tiles.partial, item.partial_ns, item.full_ns)
        first = float(costs[tiles.qt == 0].sum())
        most = max(most, first - float(costs.sum()) / rows)
    return most * MULTIPROCESSORS / 1e6


def _measured(kernel: Kernel, columns: int) -> Measured | None:
    """The portable forward kernel's times on the tiles of a kernel."""
    schedule = kernel.schedule
    for item in MEASURED:
        if (item.work, item.columns, item.itemsize, item.family) == (
            Work.FORWARD,
            columns,
            2,
            HOPPER[0].family,
        ) and (item.block_q, item.block_k) == (schedule.block_q, schedule.block_k):
            return item
    return None


def _divides(mask: BoolExpr) -> bool:
    """Whether a mask needs more of each pair than sums, shifts and comparisons."""
    return any(
        isinstance(part, Binary)
        and part.op in (IntOp.FLOORDIV, IntOp.MOD)
        and not _is_power_of_two(part.rhs)
        for part in subexpressions(mask)
    )


def _is_power_of_two(expr: IntExpr) -> bool:
    return isinstance(expr, Const) and expr.value > 0 and expr.value.bit_count() == 1
