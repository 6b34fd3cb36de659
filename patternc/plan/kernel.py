"""The tile schedule: everything a backend needs to make a kernel.

In: nothing. Out: the frozen dataclasses that `plan` fills and backends read. Not its
job: deriving the ranges (`plan.tiling`), turning them into numbers (`plan.expand`).

Queries are tiled by absolute position: query tile `qt` holds the queries
`qt * block_q <= q < (qt + 1) * block_q`, whatever `q_offset` is; so one schedule serves
every offset, and the first and the last tile of a call may be ragged. Key tile `kt`
holds `kt * block_k <= k < (kt + 1) * block_k`. A tile is FULL if every pair in it is
visible, EMPTY if none is, PARTIAL otherwise, lengths left aside: what lies beyond
`n_q` and `n_k` is clipped by the backend, so the last key tile needs a bounds test
when `n_k % block_k != 0`, even when it is FULL.

A cover may have an order. Then, in a call that is square (`is_ordered`), tiles hold
positions, not tokens: tile `qt` holds the tokens at the positions
`[qt * block_q, (qt + 1) * block_q)` of the order (`plan.order`). Every other call takes
plain tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.ir.nodes import Attention, BoolExpr, IntExpr, Layout, OrderCase
from patternc.source import NOWHERE, Span


class TileKind(Enum):
    """Whether a tile that is visited needs the mask."""

    FULL = "full"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class KeyRange:
    """For one query tile: `for kt in range(max(lo, 0), min(hi, n_key_tiles), step)`.

    Only if `guard` holds. `lo`, `hi` and `guard` read `qt`, `h`, `N` and run-time
    parameters; `lo` is never negative where the guard holds and the range is not
    empty; `hi` is `Const(UNBOUNDED)` for a range that runs to the last key tile. `residual` is what a PARTIAL tile must still test for each pair: the mask,
    less what being in this range already implies. For a FULL range it is `full`.
    """

    kind: TileKind
    lo: IntExpr
    hi: IntExpr
    step: int
    guard: BoolExpr
    residual: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Chosen blocks of pairs: `mask & within`.

    `mask` depends on `q // block_q` and `k // block_k` alone, which are whole tiles;
    `within` depends on `q - k` alone and reads no input.
    """

    mask: BoolExpr
    within: BoolExpr
    block_q: int
    block_k: int


@dataclass(frozen=True, slots=True)
class Stripes:
    """A mask as chosen diagonals, columns and blocks.

    It is `diagonals | columns & within`, and for heads that have neither, `blocks`.
    `diagonals` depends on `q` and `k` through `q - k` alone, and so does `within`, which
    reads no input; `columns` is asked of `k` alone. All may read `h`, `N` and run-time
    parameters.
    """

    diagonals: BoolExpr
    columns: BoolExpr
    within: BoolExpr
    blocks: Blocks | None = None


@dataclass(frozen=True, slots=True)
class TileCover:
    """The live tiles of the heads that share one loop nest.

    `ranges` are disjoint and together hold every live tile, symbolic in the head,
    the length and run-time parameters. They are None where no closed form was found;
    `reason` says why, and the tiles are then listed for the sizes of a call
    (`plan.quadtree`). `pieces` counts the ranges that there
    would be without fusion (`plan.fuse`). `stripes` say the mask again where it chooses
    diagonals, columns or blocks: a backend may visit these instead of the tiles.

    `order` holds one case for each segment that is ordered (None: the whole sequence)
    and `layout` the segments. The ranges are of plain tiles: an ordered call lists its
    tiles.
    """

    heads: tuple[int, ...]
    mask: BoolExpr
    ranges: tuple[KeyRange, ...] | None
    reason: str = ""
    order: tuple[OrderCase, ...] = ()
    layout: Layout | None = None
    pieces: int = 0
    stripes: Stripes | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def is_ordered(self, n_q: int, n_k: int, q_offset: int) -> bool:
        """Whether a call of these sizes takes tiles of positions."""
        fits = self.layout is None or self.layout.size == n_k
        return bool(self.order) and n_q == n_k and q_offset == 0 and fits


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a kernel runs: speed only, never the result.

    `block_q` x `block_k` pairs in a tile, `warps` in a thread block, `stages` key
    tiles in flight (None: as many as was measured best for the head size). Blocks are
    powers of two of at least 16. The defaults were the fastest of seven measured on an
    H200, for dense, causal, window and strided masks and head sizes 64 and 128.
    """

    block_q: int = 64
    block_k: int = 64
    warps: int = 4
    stages: int | None = None


@dataclass(frozen=True, slots=True)
class Kernel:
    """An attention after the passes, with its covers: one for each head group."""

    attention: Attention
    covers: tuple[TileCover, ...]
    schedule: Schedule

    def cover_of(self, head: int) -> TileCover:
        """The cover of a query head. Raises `LookupError` if there is none."""
        for cover in self.covers:
            if head in cover.heads:
                return cover
        raise LookupError(f"no cover for head {head}")
