"""What generated kernels do beside their loops, in words.

In: a planned kernel. Out: sentences for `explain`. Not its job: the loops
(`plan.tiling`) and launches by head size (`plan.choose`), which have lines of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from patternc.backends.triton.features import features_of, needs_profile
from patternc.backends.triton.pairs import (
    PAIR_BYTES,
    Blocks,
    Diagonals,
    PairRead,
    Squares,
    all_pair_reads,
    pair_reads,
)
from patternc.backends.triton.profiles import is_chosen
from patternc.backends.triton.ranges import hides_pairs, is_listed
from patternc.backends.triton.shares import packs
from patternc.backends.triton.slopes import column_reads, row_reads
from patternc.backends.triton.stripe_gradients import has_gradients
from patternc.backends.triton.stripes import Striped, striped
from patternc.ir.text import print_heads
from patternc.plan.kernel import Kernel, Schedule, TileCover

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
    return (*notes, *_data_notes(kernel))


def _data_notes(kernel: Kernel) -> Iterator[str]:
    """How tiles that follow data are found, forward and backward."""
    features, own = features_of(kernel), striped(kernel)
    listed = [c for c in kernel.covers if is_listed(c) and needs_profile(c)]
    if own is not None:
        ours = [cover for cover, _ in own.covers]
        listed = [cover for cover in listed if cover not in ours]
        parts = f"heads {_heads(ours)}: chosen {_parts(own)}"
        if has_gradients(features):
            yield f"{parts}, forward and backward, in lists that the device makes"
        else:
            reads = {
                read.table
                for case in features.scores
                for read in (*row_reads(case), *column_reads(case), *pair_reads(case))
            }
            yield f"{parts}, forward only, in lists that the device makes"
            yield (
                f"heads {_heads(ours)}: backward by lists of tiles, as the gradient of"
                f" `{min(reads)}`, which a score reads, is added up tile by tile;"
                f" {_LISTS[is_chosen(kernel)]}"
            )
    if listed:
        how = _LISTS[is_chosen(kernel)]
        yield f"heads {_heads(listed)}: lists of tiles, forward and backward; {how}"


_LISTS = {
    True: "they have room for every tile and are made without waiting for the device",
    False: "their length is waited for where inputs are new",
}


def _heads(covers: list[TileCover]) -> str:
    return print_heads(tuple(sorted(h for cover in covers for h in cover.heads)))


def _parts(own: Striped) -> str:
    """What is chosen, in words."""
    kinds = [
        *(["diagonals"] if own.has_diagonals else []),
        *(["columns"] if own.has_columns else []),
        *(["blocks"] if own.blocks is not None else []),
    ]
    *first, last = kinds
    return f"{', '.join(first)} and {last}" if first else last


def gradient_notes(kernel: Kernel) -> tuple[str, ...]:
    """What the gradient of each input that a score reads costs, beside q, k and v."""
    notes: dict[str, None] = {}
    for case in kernel.attention.scores:
        for read in row_reads(case):
            notes[f"{read.table}: a number for each query and head"] = None
        for read in column_reads(case):
            notes[f"{read.table}: a number for each key and head"] = None
    for pair in all_pair_reads(kernel):
        notes[f"{pair.read.table}: {_pair_note(pair, kernel.schedule)}"] = None
    return tuple(notes)


def _pair_note(pair: PairRead, schedule: Schedule) -> str:
    """What tiles store for an element that is read at pairs, and what follows."""
    width, height = schedule.block_k, schedule.block_q
    tile = f"each tile of {height} x {width} pairs stores"
    parts = f"; more launches where that takes over {PAIR_BYTES >> 20} MiB"
    match pair.sums:
        case Diagonals():
            count = (max(height // width, 1) + 1) * width
            return f"{tile} {count} sums, of its diagonals q - k{parts}"
        case Squares(size):
            count = height * width * 2 // size
            of = f"of the diagonals of squares of {size} x {size} pairs"
            return f"{tile} {count} sums, {of}{parts}"
        case Blocks(1, 1) if pair.has_own_element:
            count = height * width
            return f"{tile} {count} numbers, added to the elements of its pairs{parts}"
        case Blocks(1, 1):
            return (
                f"{tile} {height * width} numbers, which are sorted by the element that"
                f" each pair reads: slow for long sequences{parts}"
            )
        case Blocks(queries, keys):
            count = height * width // (queries * keys)
            return f"{tile} {count} sums, of blocks of {queries} x {keys} pairs{parts}"
        case _:
            assert_never(pair.sums)
