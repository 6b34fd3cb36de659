"""The reverse relation: for one key tile the query tiles that see it.

In: a planned kernel and the tile that its key gradients take. Out: a kernel whose
covers have reversed ranges: `for qt in range(lo, hi, step)`, with `lo`, `hi` and
`guard` over `kt`, `h`, `N` and run-time parameters. Not its job: numbers, tiles without
a closed form (backends turn the lists of `plan.quadtree` round).

The tiles are those that `plan.tiling` derives, cut into loops the other way; so a
reversed range is FULL, or has a residual test, exactly where a forward one does.
Queries may stand before position 0 (`q_offset` is any integer), keys may not: the
ranges begin at the least position that a call may have, and a backend takes those
between the first and the last query tile of the call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import islpy as isl

from patternc.analysis.loops import NoLoop
from patternc.analysis.sets import NotAffine, TooHard, params_of_set
from patternc.ir.nodes import (
    KEY_TILE,
    QUERY_TILE,
    UNBOUNDED,
    BoolExpr,
    Expr,
    HeadCase,
    IntExpr,
)
from patternc.ir.walk import rewrite
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileCover
from patternc.plan.tiling import MAX_RANGES, closed_form

_DOMAIN = f"k >= 0 and q >= -{UNBOUNDED}"


def reverse(kernel: Kernel, schedule: Schedule) -> Kernel:
    """The kernel with reversed ranges in tiles of `schedule`'s blocks.

    A cover without ranges stays without. Never fails: where a loop cannot be turned
    round, `ranges` is None and `reason` says why.
    """
    heads = kernel.attention.heads
    covers = tuple(_reversed(cover, heads, schedule) for cover in kernel.covers)
    return replace(kernel, covers=covers, schedule=schedule)


def _reversed(cover: TileCover, heads: int, schedule: Schedule) -> TileCover:
    if cover.ranges is None:
        return cover
    case = HeadCase(cover.heads, cover.mask, cover.span)
    try:
        found, pieces = closed_form(case, heads, schedule, _DOMAIN, _turned, "qt >= 0")
    except (NotAffine, TooHard, NoLoop) as error:
        return replace(cover, ranges=None, reason=str(error))
    if len(found) > MAX_RANGES:
        reason = f"the reverse pattern falls into {len(found)} ranges"
        return replace(cover, ranges=None, reason=reason)
    ranges = tuple(_over_key_tiles(part) for part in found)
    return replace(cover, ranges=ranges, pieces=pieces)


def _turned(piece: isl.Set) -> isl.Set:
    """A set of `[qt, kt]` as one of `[kt, qt]`."""
    params = ", ".join(params_of_set(piece))
    text = f"[{params}] -> {{ [qt, kt] -> [kt, qt] }}"
    return piece.apply(isl.Map.read_from_str(piece.get_ctx(), text))


def _over_key_tiles(part: KeyRange) -> KeyRange:
    """The row, which `closed_form` calls `qt`, is a key tile here."""

    def rule(node: Expr) -> Expr:
        return KEY_TILE if node == QUERY_TILE else node

    return replace(
        part,
        lo=cast(IntExpr, rewrite(part.lo, rule)),
        hi=cast(IntExpr, rewrite(part.hi, rule)),
        guard=cast(BoolExpr, rewrite(part.guard, rule)),
    )
