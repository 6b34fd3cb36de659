"""The steps of a query tile over blocks that inputs choose, as Gluon text.

In: a planned kernel all of whose covers have such blocks and nothing else, on the tiles
of the kernel for Hopper. Out: the lines that `emit` puts into `key_steps`,
`masked_tile`, `full_tile` and `hide_pairs`. Not its job: listing blocks, which is done
once for both kernels (`backends.triton.stripes`).

PARTIAL blocks come first and are masked; so are, after them, the tiles of the last FULL
block that keys fill only in part or not at all.
"""

from __future__ import annotations

from patternc.backends.triton.ranges import MASK_NAMES, printer_of
from patternc.backends.triton.stripe_loops import block_lines, tiles_of
from patternc.backends.triton.stripes import striped
from patternc.ir.text import print_expr
from patternc.plan.kernel import Blocks, Kernel

POINTERS = ["stripe_blocks", "block_ends"]
"""Those of `backends.triton.stripes.STRIPES` that are read here."""

SLOTS = ["n_partial", "first_cut", "edge_at", "block_at", "n_full"]
"""What the functions of a step know of a query tile."""


def blocks_of(kernel: Kernel) -> Blocks | None:
    """The blocks of a kernel that visits nothing else, or None."""
    found = striped(kernel)
    if found is None or found.has_lines or len(found.covers) != len(kernel.covers):
        return None
    return found.blocks


def range_lines(kernel: Kernel, blocks: Blocks) -> list[str]:
    """The lists of the query tile's block, and how many steps of each kind there are."""
    per = tiles_of(kernel, blocks)[1]
    return [
        "stripe_row = (b * stripe_batch + h).to(tl.int64)",
        *block_lines(kernel, blocks),
        "n_partial = n_edge",
        "at_end = block_at + n_block // " + str(per) + " - 1",
        "last_block = tl.load(at_end, mask=n_block > 0, other=0).to(tl.int32)",
        f"end = (last_block + 1) * {per}",
        "n_cut = tl.where(n_block > 0, tl.maximum(end - n_k // BLOCK_K, 0), 0)",
        f"n_cut = tl.minimum(n_cut, {per})",
        "first_cut = end - n_cut",
        "n_full = n_block - n_cut",
        "n_masked = n_partial + n_cut",
    ]


def masked_lines(kernel: Kernel, blocks: Blocks) -> list[str]:
    """The key tile of a masked step."""
    return [
        *_nth_tile("edge_at -", tiles_of(kernel, blocks)[1], "n_partial"),
        "return tl.where(t < n_partial, kt, first_cut + t - n_partial)",
    ]


def full_lines(kernel: Kernel, blocks: Blocks) -> list[str]:
    """The key tile of a step over FULL tiles."""
    per = tiles_of(kernel, blocks)[1]
    return [*_nth_tile("block_at +", per, "n_full"), "return kt"]


def _nth_tile(place: str, per: int, end: str) -> list[str]:
    """The tile of a step that may lie beyond the last one."""
    nth = "t" if per == 1 else f"t // {per}"
    lines = [
        f"block = tl.load({place} {nth}, mask=t < {end}, other=0)",
        "kt = block.to(tl.int32)",
    ]
    return lines if per == 1 else [*lines, f"kt = kt * {per} + t % {per}"]


def hide_lines(kernel: Kernel, blocks: Blocks) -> list[str]:
    """The lines that hide the pairs of a PARTIAL block where it does not count."""
    printer = printer_of(kernel, MASK_NAMES)
    return [
        "if t < n_partial:",
        f"    # tests {print_expr(blocks.within)}",
        *("    " + line for line in printer.assign("keep", blocks.within, 8)),
        '    s = tl.where(keep, s, float("-inf"))',
    ]
