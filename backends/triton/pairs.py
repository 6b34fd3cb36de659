"""Elements that scores read at pairs of a query and a key: their gradients' first half.

In: a planned kernel's scores. Out: how far the pairs of a tile can be added up before
it is known which element each of them reads, and the Triton text that does so. Not its
job: which element that is (`input_gradients`, on the host), derivatives (`slopes`).

The query gradient kernel has `ds` of every pair of a tile in its registers, and each
tile belongs to one program. So it stores what the tile adds, in a place of its own: no
atomics, and no kernel more. An index of `q - k` alone (relative biases, buckets of
distances) leaves the sums of the tile's diagonals; one of whole blocks those of blocks;
any other the pairs themselves. The table's size does not matter, and the index may be
anything: it is not turned round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from patternc.backends.triton.features import Features, reads_axis
from patternc.backends.triton.tables import call_lines
from patternc.ir.floats import float_reads
from patternc.ir.nodes import (
    HEAD,
    KEY,
    QUERY,
    Axis,
    Binary,
    Const,
    Expr,
    FloatRead,
    IntOp,
    ScoreCase,
)
from patternc.ir.walk import axes_of, children, tables_of
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.stripes import follows_diagonals

PAIR_BYTES = 2**28
"""What the sums of a launch, and adding them up, may take: more launches beyond."""


@dataclass(frozen=True, slots=True)
class PairRead:
    """An element that a score reads at pairs, and what a tile adds up for it.

    `block` is None where these are diagonals, else (queries, keys) of a block. With an
    order tiles hold positions, so that neither is made of tokens side by side.
    """

    read: FloatRead
    case: ScoreCase
    block: tuple[int, int] | None
    has_order: bool

    @property
    def reads_head(self) -> bool:
        """Whether heads may read different elements at a pair."""
        return reads_axis(self.read, Axis.HEAD)

    @property
    def reads_data(self) -> bool:
        """Whether the index reads inputs: batch elements may then differ."""
        return any(tables_of(index) for index in self.read.indices)

    @property
    def has_own_element(self) -> bool:
        """Whether each pair reads an element of its own, at `q` and `k` as they are."""
        indices = self.read.indices
        if (
            self.has_order
            or indices.count(QUERY) != 1
            or indices.count(KEY) != 1
            or self.reads_data
        ):
            return False
        rest = [index for index in indices if index not in (QUERY, KEY)]
        if any(axes_of(index) & {Axis.QUERY, Axis.KEY} for index in rest):
            return False
        return HEAD in rest or not self.reads_head


def pair_reads(case: ScoreCase) -> list[FloatRead]:
    """The elements that differ from pair to pair."""
    reads = [read for read in float_reads(case.score) if reads_axis(read, Axis.KEY)]
    return [read for read in reads if reads_axis(read, Axis.QUERY)]


def all_pair_reads(kernel: Kernel) -> list[PairRead]:
    """Those of every score, in the order in which kernels take their sums."""
    found = []
    for case in kernel.attention.scores:
        covers = [cover for cover in kernel.covers if {*cover.heads} & {*case.heads}]
        has_order = any(cover.order for cover in covers)
        for read in pair_reads(case):
            block = (1, 1) if has_order else _block(read, kernel.schedule)
            found.append(PairRead(read, case, block, has_order))
    return found


def pair_tables(features: Features) -> set[str]:
    """The inputs that some score reads at pairs."""
    return {read.table for case in features.scores for read in pair_reads(case)}


def has_pairs(features: Features) -> bool:
    """Whether some score reads an input at pairs."""
    return bool(pair_tables(features))


def _block(read: FloatRead, schedule: Schedule) -> tuple[int, int] | None:
    if all(follows_diagonals(index) for index in read.indices):
        return None
    queries, keys = schedule.block_q, schedule.block_k
    for index in read.indices:
        queries = gcd(queries, _alike(index, Axis.QUERY))
        keys = gcd(keys, _alike(index, Axis.KEY))
    return queries, keys


def _alike(expr: Expr, axis: Axis) -> int:
    """So many tokens, from a multiple of it on, have one value; 0: all have."""
    match expr:
        case _ if axis not in axes_of(expr):
            return 0
        case Binary(op=IntOp.FLOORDIV, lhs=lhs, rhs=Const(value=size)) if size > 0:
            inner = _alike(lhs, axis)
            return size if lhs in (QUERY, KEY) else inner
        case _:
            return gcd(*(_alike(child, axis) for child in children(expr)), 0) or 1


def place_lines(reads: Sequence[PairRead]) -> list[str]:
    """Of the query gradient kernel: which tile of which head a program has."""
    if not reads:
        return [
            "qt = first_q_tile + n_q_tiles - 1 - program % n_q_tiles",
            "h = program // n_q_tiles % HEADS",
            "b = program // n_q_tiles // HEADS",
        ]
    return [
        "local = part_tiles - 1 - program % part_tiles",
        "qt = first_q_tile + part_tile + local",
        "h = program // part_tiles % HEADS",
        "b = part_b + program // part_tiles // HEADS",
        "own_at = ((b - part_b) * HEADS + h).to(tl.int64) * part_tiles + local",
    ]


NUMBERS = ("part_tile", "part_tiles", "part_b", "batches")
"""The last arguments of a query gradient kernel that takes a part of the programs."""


def sum_pointers(reads: Sequence[PairRead]) -> list[str]:
    """The arguments where sums are stored."""
    return [f"pair_sums_{at}" for at in range(len(reads))]


def store_lines(own: PairRead, at: int, pairs: str, indent: int) -> list[str]:
    """In the loop: what a tile adds for the read that is `at` among all."""
    sums = f"pair_sums_{at}"
    if own.block is None:
        inner = [sums, pairs, "own_at", "local", "kt", "part_tiles", "n_k_tiles"]
        return _call("store_diagonal_sums", [*inner, "BLOCK_Q", "BLOCK_K"], indent)
    rows, columns = (f"BLOCK_{x} // {n}" for x, n in zip("QK", own.block, strict=True))
    inner = [sums, pairs, "own_at", "kt", "n_k_tiles", rows, columns]
    return _call("store_block_sums", [*inner, "BLOCK_Q", "BLOCK_K"], indent)


def _call(function: str, arguments: list[str], indent: int) -> list[str]:
    target = "nothing = "
    lines = call_lines("nothing", function, arguments, indent - len(target))
    return [lines[0].removeprefix(target), *lines[1:]]
