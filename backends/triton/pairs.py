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
from typing import assert_never

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
    Index,
    IntExpr,
    IntOp,
    ScoreCase,
)
from patternc.ir.walk import axes_of, children, rewrite_down, tables_of
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.stripes import follows_diagonals

PAIR_BYTES = 2**28
"""What the sums of a launch, and adding them up, may take: more launches beyond."""


@dataclass(frozen=True, slots=True)
class Diagonals:
    """The element depends on `q - k` alone: sums of a tile's diagonals."""


@dataclass(frozen=True, slots=True)
class Squares:
    """It does so in squares of `size` queries and keys: sums of their diagonals."""

    size: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """It is the same for blocks of so many queries and keys, at multiples of them."""

    queries: int
    keys: int


Sums = Diagonals | Squares | Blocks

_PAIRS = Blocks(1, 1)
_LEAST_SQUARE = 8


@dataclass(frozen=True, slots=True)
class PairRead:
    """An element that a score reads at pairs, and what a tile adds up for it.

    With an order tiles hold positions, not tokens side by side: nothing is added up.
    """

    read: FloatRead
    case: ScoreCase
    sums: Sums
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
            sums = _PAIRS if has_order else _sums(read, kernel.schedule)
            found.append(PairRead(read, case, sums, has_order))
    return found


def pair_tables(features: Features) -> set[str]:
    """The inputs that some score reads at pairs."""
    return {read.table for case in features.scores for read in pair_reads(case)}


def has_pairs(features: Features) -> bool:
    """Whether some score reads an input at pairs."""
    return bool(pair_tables(features))


def _sums(read: FloatRead, schedule: Schedule) -> Sums:
    """The fewest numbers that a tile can leave."""
    if all(map(follows_diagonals, read.indices)):
        return Diagonals()
    queries, keys = schedule.block_q, schedule.block_k
    size = min(queries, keys)
    for index in read.indices:
        queries = gcd(queries, _alike(index, Axis.QUERY))
        keys = gcd(keys, _alike(index, Axis.KEY))
    while size >= _LEAST_SQUARE and 2 * queries * keys < size:
        if all(follows_diagonals(_in_square(x, size)) for x in read.indices):
            return Squares(size)
        size //= 2
    return Blocks(queries, keys)


def _in_square(index: IntExpr, size: int) -> Expr:
    """An index in an aligned square; the head stands for all that is one number there."""

    def rule(node: Expr) -> Expr | None:
        if (token := _token(node, size)) is not None:
            return token
        match node:
            case Binary(op=IntOp.FLOORDIV, lhs=lhs, rhs=Const(value=divisor)):
                if divisor > 0 and divisor % size == 0 and _token(lhs, size):
                    return HEAD
        return None

    return rewrite_down(index, rule)


def _token(expr: Expr, size: int) -> Index | None:
    """`q` or `k`, if the expression is that, less a number that a square has alone."""
    match expr:
        case Index(axis=Axis.QUERY | Axis.KEY):
            return expr
        case Binary(op=IntOp.ADD | IntOp.SUB, lhs=lhs, rhs=Const(value=value)):
            return _token(lhs, size) if value % size == 0 else None
        case Binary(op=IntOp.MOD, lhs=lhs, rhs=Const(value=value)) if value > 0:
            return _token(lhs, size) if value % size == 0 else None
    return None


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
    given = [f"pair_sums_{at}", pairs, "own_at"]
    match own.sums:
        case Diagonals():
            function = "store_diagonal_sums"
            given += ["local", "kt", "part_tiles", "n_k_tiles"]
        case Squares(size):
            function = "store_square_sums"
            given += ["kt", "n_k_tiles", str(size)]
        case Blocks(queries, keys):
            function = "store_block_sums"
            given += ["kt", "n_k_tiles", f"BLOCK_Q // {queries}", f"BLOCK_K // {keys}"]
        case _:
            assert_never(own.sums)
    return _call(function, [*given, "BLOCK_Q", "BLOCK_K"], indent)


def sum_templates(reads: Sequence[PairRead]) -> list[str]:
    """The templates of the functions that `store_lines` calls."""
    names = {Diagonals: "diagonal_sums", Squares: "square_sums", Blocks: "block_sums"}
    return sorted({names[type(read.sums)] for read in reads})


def sum_sizes(sums: Sums, schedule: Schedule) -> tuple[int, ...]:
    """The same as a package says it: no sizes for diagonals."""
    match sums:
        case Diagonals():
            return ()
        case Squares(size):
            return (schedule.block_q // size, schedule.block_k // size, 2 * size)
        case Blocks(queries, keys):
            return (schedule.block_q // queries, schedule.block_k // keys)
        case _:
            assert_never(sums)


def kind_text(sums: Sums) -> str:
    """What a tile stores, as `PAIR_SUMS` says it: "diagonals", or its sizes."""
    match sums:
        case Diagonals():
            return '"diagonals"'
        case Squares(size):
            return f"(BLOCK_Q // {size}, BLOCK_K // {size}, {2 * size})"
        case Blocks(queries, keys):
            return f"(BLOCK_Q // {queries}, BLOCK_K // {keys})"
        case _:
            assert_never(sums)


def _call(function: str, arguments: list[str], indent: int) -> list[str]:
    target = "nothing = "
    lines = call_lines("nothing", function, arguments, indent - len(target))
    return [lines[0].removeprefix(target), *lines[1:]]
