"""The tile of a program, and the warps and stages of its kernels.

In: an attention after the passes; times that were measured (`plan.measured`). Out: a
`Choice`: a schedule, where it is from, and how each kernel is launched. Not its job:
measuring (`bench.tune`), deriving tiles (`plan.tiling`). Nothing is tried at run time.

The tile is what the model predicts to be fastest: for each measured tile the time is
the sum of its full tiles, its partial tiles and its query tiles, each at the measured
cost. Only tiles measured on one device for one head size are compared. What was not
measured follows rules: as many stages, up to three, as the shared memory of a family
holds; for gradients four warps, but eight for tiles of more than 64 x 64 pairs or more
than 128 columns, whose sums are too many for the registers of four.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from patternc.ir.floats import float_reads
from patternc.ir.nodes import Attention, Axis, FloatRead, Read
from patternc.ir.walk import axes_of, subexpressions, tables_of
from patternc.plan.expand import count_tiles, head_classes, query_tiles
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.measured import MEASURED, Measured, Work
from patternc.plan.tiling import plan

SHARED_BYTES: Mapping[str, int] = {
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "sm_120": 99 << 10,
    "gfx942": 64 << 10,
}
"""Shared memory that one thread block can have, by family of devices."""

FAMILY = "sm_90"
"""Whose measured times choose the tile where a program is for any device."""

COLUMNS = (16, 32, 64, 128, 256)
ITEM_SIZES = (2, 4)
MOST_STAGES = 3

REFERENCE_LENGTH = 16384
"""The length at which tiles are compared; a layout has one of its own."""

ASKED = "asked for by the caller"

_BARRIERS = 1 << 10
"""What Triton adds to the tiles: barriers, and the alignment of a tile."""

_RESERVED = 1 << 10
"""Shared memory that each thread block takes for the system."""

_LARGEST_ELEMENT = 8
"""Bytes of the widest input that is read for each key of a tile."""

_TESTED_TILE = 64 * 64
"""Pairs in the largest tile that four warps compute without spilling."""

_TESTED_COLUMNS = 128
"""The same for columns, in the gradient kernels, which hold two sums of a tile."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Warps and stages of one kernel, and whether they were measured."""

    warps: int
    stages: int
    is_measured: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule and where it is from, in words."""

    schedule: Schedule
    origin: str


def choose(attention: Attention, table: Iterable[Measured] = MEASURED) -> Choice:
    """The tile of an attention. Never fails: without a comparison it is the default.

    Programs whose tiles depend on inputs or run-time parameters without a default, or
    follow an order, keep the default tile: what they visit is known at a call, or was
    found for that tile.
    """
    default = Schedule()
    rivals = _rivals(table)
    if len({(item.block_q, item.block_k) for item in rivals}) < 2:
        return Choice(default, _only_tile(rivals))
    if attention.orders or any(tables_of(case.mask) for case in attention.cases):
        return Choice(default, "the default: tiles are listed at a call")
    values = {param.name: param.default for param in attention.params}
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < len(values):
        return Choice(default, "the default: a run-time parameter has no value")
    times: dict[tuple[int, int], list[float]] = {}
    kernels: dict[tuple[int, int], Kernel] = {}
    for item in rivals:
        blocks = (item.block_q, item.block_k)
        if blocks not in kernels:
            kernels[blocks] = plan(attention, replace(default, **_blocks(item)))
        times.setdefault(blocks, []).append(predict(kernels[blocks], item, known))
    first = rivals[0]
    best = min(times, key=lambda blocks: min(times[blocks]))
    found = min(
        (item for item in rivals if (item.block_q, item.block_k) == best),
        key=lambda item: predict(kernels[best], item, known),
    )
    schedule = replace(default, **_blocks(found), warps=found.warps)
    tried = ", ".join(f"{q}x{k} {min(ms):.3f} ms" for (q, k), ms in times.items())
    where = f"{first.device}, head size {first.columns}, N = {_length(attention)}"
    return Choice(schedule, f"measured: the model predicts {tried} ({where})")


def written(attention: Attention) -> Choice | None:
    """What the program's schedule block says, if it has one.

    What the block leaves open is the default.
    """
    block = attention.schedule
    if block is None:
        return None
    line = block.span.line
    schedule = replace(Schedule(), **block.given)
    return Choice(schedule, f"the program's schedule block, line {line}")


def predict(kernel: Kernel, item: Measured, values: Mapping[str, int]) -> float:
    """Milliseconds of one pass over all heads, batch 1, as many queries as keys.

    Raises `LookupError` if the tiles depend on an input.
    """
    length = _length(kernel.attention)
    rows = len(query_tiles(kernel.schedule, length, 0))
    total = 0.0
    for cover in kernel.covers:
        for heads in head_classes(cover):
            tiles = count_tiles(kernel, heads[0], length, length, 0, values)
            full = tiles.visited - tiles.partial
            one = full * item.full_ns + tiles.partial * item.partial_ns
            total += len(heads) * (one + rows * item.start_ns)
    return total / 1e6


def launch(
    work: Work,
    schedule: Schedule,
    columns: int,
    itemsize: int,
    family: str = FAMILY,
    table: Iterable[Measured] = MEASURED,
) -> Launch:
    """Warps and stages of one kernel on tiles of `schedule`.

    Stages that the schedule gives are kept, and so are its warps for the forward pass;
    all others are measured ones, or follow the rules. Raises `ValueError` if even one
    stage is too much for the family's shared memory, or the family is unknown.
    """
    most = most_stages(work, schedule, columns, itemsize, family)
    for item in table:
        blocks = (item.block_q, item.block_k)
        if (item.family, item.work, item.columns, item.itemsize, *blocks) == (
            family,
            work,
            columns,
            itemsize,
            schedule.block_q,
            schedule.block_k,
        ):
            warps = schedule.warps if work is Work.FORWARD else item.warps
            return Launch(warps, schedule.stages or item.stages, True)
    small = schedule.block_q * schedule.block_k <= _TESTED_TILE
    small &= columns <= _TESTED_COLUMNS
    warps = schedule.warps if work is Work.FORWARD else (4 if small else 8)
    return Launch(warps, schedule.stages or min(most, MOST_STAGES), False)


def launches(
    schedule: Schedule,
    works: Iterable[Work] = Work,
    family: str = FAMILY,
    beside: int = 0,
) -> dict[tuple[str, int, int], tuple[int, int]]:
    """(work, columns of a tile, bytes of an element) -> (warps, stages).

    Kernels that shared memory can't hold are left out. `beside` are the bytes that each
    stage of the forward kernel holds beside the tiles: `bytes_beside`.
    """
    found = {}
    for work in works:
        for columns in COLUMNS:
            for itemsize in ITEM_SIZES:
                try:
                    one = launch(work, schedule, columns, itemsize, family)
                except ValueError:
                    continue
                stages = one.stages
                if work is Work.FORWARD and beside and schedule.stages is None:
                    sizes = (schedule, columns, itemsize)
                    stages = _stages_of_two(*sizes, stages, beside, family)
                found[(work.value, columns, itemsize)] = (one.warps, stages)
    return found


def bytes_beside(kernel: Kernel) -> int:
    """What a stage of the forward kernel holds of inputs that are read for each key.

    0 for a program that reads none: measured stages are those of such programs. Chosen
    diagonals, columns and blocks are read before that kernel starts.
    """
    attention, block_k = kernel.attention, kernel.schedule.block_k
    found: list[Read | FloatRead] = []
    for cover in kernel.covers:
        if cover.stripes is None:
            found += [x for x in subexpressions(cover.mask) if isinstance(x, Read)]
    for score in attention.scores:
        found += float_reads(score.score)
    of_keys = any(Axis.KEY in axes_of(at) for read in found for at in read.indices)
    return block_k * _LARGEST_ELEMENT if of_keys else 0


def _stages_of_two(
    schedule: Schedule,
    columns: int,
    itemsize: int,
    stages: int,
    beside: int,
    family: str,
) -> int:
    """As many stages as let two thread blocks share a multiprocessor still.

    One block hides little of its own waiting: a few bytes too many cost a fifth of the
    speed of masks that read documents. Where two never fit, nothing is given up.
    """
    limit = SHARED_BYTES[family] + _RESERVED

    def fits(count: int, more: int) -> bool:
        tiles = shared_bytes(Work.FORWARD, schedule, columns, itemsize, count)
        return 2 * (tiles + count * more + _RESERVED) <= limit

    fewer = stages
    while fewer > 1 and fits(fewer, 0) and not fits(fewer, beside):
        fewer -= 1
    return fewer


def shared_bytes(
    work: Work, schedule: Schedule, columns: int, itemsize: int, stages: int
) -> int:
    """Shared memory of a kernel, in bytes; Triton's own figure is at most that.

    The tiles that stay (q; q and its gradient; k and v) and, `stages` times, those that
    the loop reads (k and v; q and its gradient), each of `columns` columns.
    """
    query, key = schedule.block_q, schedule.block_k
    match work:
        case Work.FORWARD:
            kept, read = query, 2 * key
        case Work.QUERY:
            kept, read = 2 * query, 2 * key
        case Work.KEY:
            kept, read = 2 * key, 2 * query
    return (kept + stages * read) * columns * itemsize + _BARRIERS


def most_stages(
    work: Work, schedule: Schedule, columns: int, itemsize: int, family: str = FAMILY
) -> int:
    """How many stages fit. Raises `ValueError` if none does."""
    limit = SHARED_BYTES.get(family)
    if limit is None:
        raise ValueError(f"families are {', '.join(SHARED_BYTES)}; got {family}")
    empty, one = (shared_bytes(work, schedule, columns, itemsize, n) for n in (0, 1))
    if one > limit:
        tile = f"{schedule.block_q}x{schedule.block_k}x{columns}"
        raise ValueError(
            f"tiles of {tile} with {itemsize} bytes an element need {one} bytes of"
            f" shared memory, {family} has {limit}: take smaller tiles"
        )
    return (limit - empty) // (one - empty)


def _rivals(table: Iterable[Measured]) -> list[Measured]:
    """The forward kernels that are compared: one device, the largest head size."""
    forward = [
        item
        for item in table
        if item.family == FAMILY and item.work is Work.FORWARD and item.itemsize == 2
    ]
    if not forward:
        return []
    columns = max(item.columns for item in forward)
    device = forward[0].device
    return [i for i in forward if i.columns == columns and i.device == device]


def _only_tile(rivals: list[Measured]) -> str:
    if not rivals:
        return "the default: nothing was measured"
    return f"the default, the only tile that was measured ({rivals[0].device})"


def _blocks(item: Measured) -> dict[str, int]:
    return {"block_q": item.block_q, "block_k": item.block_k}


def _length(attention: Attention) -> int:
    layout = attention.layout
    return REFERENCE_LENGTH if layout is None else layout.size
