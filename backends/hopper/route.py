"""Which programs have a kernel for Hopper, and on which tiles.

In: a planned kernel. Out: the reason why it has none, or its plan on the tiles of that
kernel. Not its job: which calls take it, which is in the text of `launch`.
"""

from __future__ import annotations

from dataclasses import replace

from patternc.backends.triton.features import features_of
from patternc.backends.triton.ranges import has_lists
from patternc.ir.nodes import Binary, BoolExpr, Const, IntExpr, IntOp
from patternc.ir.walk import subexpressions
from patternc.plan.kernel import Kernel
from patternc.plan.tiling import plan

BLOCK_Q = 128
"""Queries of a tile: two groups of four warps with 64 each."""

BLOCK_K = 128
"""Keys of a step."""

LEAST_EXACT_Q = 64
"""The fewest queries of the portable kernel's tiles: each half of a tile has one flag."""


def refusal(kernel: Kernel) -> str:
    """Why a program has no kernel for Hopper; nothing if it has one."""
    attention, features = kernel.attention, features_of(kernel)
    block = attention.schedule
    if block is not None:
        return f"the schedule block in line {block.span.line} asks for tiles of its own"
    if kernel.schedule.block_q < LEAST_EXACT_Q:
        return f"tiles of {kernel.schedule.block_q} queries were asked for"
    if features.is_ordered:
        return "its tokens have an order"
    if features.inputs:
        return "it reads inputs"
    if not features.is_plain:
        return "it has scores, weights, sinks, outputs or skipped heads"
    if has_lists(kernel):
        return "its tiles have no closed form"
    if any(_divides(cover.mask) for cover in kernel.covers):
        return "its mask divides by a number that is no power of two: registers spill"
    return ""


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


def hopper_kernel(kernel: Kernel, block_k: int = BLOCK_K) -> Kernel | None:
    """The same attention on the tiles of the kernel for Hopper; None if it has none."""
    if refusal(kernel):
        return None
    schedule = replace(kernel.schedule, block_q=BLOCK_Q, block_k=block_k)
    found = plan(kernel.attention, schedule)
    return None if has_lists(found) else found
