"""What generated kernels do beside their loops, in words.

In: a planned kernel. Out: sentences for `explain`. Not its job: the loops
(`plan.tiling`) and launches by head size (`plan.choose`), which have lines of their own.
"""

from __future__ import annotations

from patternc.backends.triton.features import features_of
from patternc.backends.triton.ranges import hides_pairs
from patternc.backends.triton.shares import packs
from patternc.plan.kernel import Kernel

_LOOPS = (
    "these loops at every length, short sequences and dense masks too; where few queries"
    " would leave a device idle, several programs share the key tiles of one query tile"
)
"""There is one kernel, so that no length takes another."""

_EXACT = (
    "a second launch computes a query tile again, pair by visible pair, where NaN"
    " appeared in its sums; else it ends at once"
)


def path_notes(kernel: Kernel) -> tuple[str, ...]:
    """Which kernels a call runs, and on what it depends."""
    size = kernel.attention.heads // kernel.attention.kv_heads
    packing = (
        f"the {size} query heads of a key/value head are rows of one tile where their"
        " queries fit into it: keys and values are then read once"
    )
    notes = [_LOOPS]
    notes += [packing] if packs(kernel, features_of(kernel)) else []
    notes += [_EXACT] if hides_pairs(kernel) else []
    return tuple(notes)
