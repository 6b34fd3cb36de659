"""What the kernel for Hopper visits of what inputs choose.

In: a planned kernel. Out: its blocks, or its diagonals and columns, or in words why that
kernel cannot visit them. Not its job: the text (`block_steps`, `stripe_steps`), all that
is refused for other reasons (`route`).
"""

from __future__ import annotations

from patternc.backends.triton.stripes import Striped, striped
from patternc.ir.nodes import EMPTY_PATTERN
from patternc.plan.kernel import Blocks, Kernel


def blocks_of(kernel: Kernel) -> Blocks | None:
    """The blocks of a kernel that visits nothing else, or None."""
    found = striped(kernel)
    if found is None or found.has_lines or len(found.covers) < len(kernel.covers):
        return None
    return found.blocks


def lines_of(kernel: Kernel) -> Striped | None:
    """The diagonals and columns of a kernel that can be visited alone, or None."""
    found = striped(kernel)
    if found is None or found.blocks is not None or refusal_of_lines(kernel, found):
        return None
    return found


def refusal(kernel: Kernel, own: Striped, block_q: int, block_k: int) -> str:
    """Why what inputs choose cannot be visited; nothing if it can."""
    if own.blocks is None:
        return refusal_of_lines(kernel, own)
    if own.has_lines:
        return "it has chosen blocks, and chosen diagonals or columns"
    if len(own.covers) < len(kernel.covers):
        return "some heads have chosen blocks, and others tiles of their own"
    if own.blocks.block_q % block_q or own.blocks.block_k % block_k:
        sizes = f"{own.blocks.block_q} x {own.blocks.block_k}"
        return f"its blocks of {sizes} are no whole tiles of {block_q} x {block_k}"
    return ""


def refusal_of_lines(kernel: Kernel, own: Striped) -> str:
    """The same for diagonals and columns."""
    if len(own.covers) < len(kernel.covers):
        return "some heads choose diagonals or columns, and others have tiles"
    for _, stripes in own.covers:
        if stripes.diagonals == EMPTY_PATTERN:
            return "it chooses columns and no diagonals"
    return ""
