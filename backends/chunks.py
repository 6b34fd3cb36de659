"""Live tiles grouped into batches of equal shape, for the tiled backend.

In: a planned kernel, the sizes of a call, its inputs that hold no floating numbers.
Out: for each class of heads with one mask and one way to weigh, chunks: query tiles
that reach equally many keys, with row and key numbers to gather by and the visibility
of the tiles that need the mask. Under an order the numbers are those of the tokens at
a tile's positions, so results land in the caller's order. Not its job: finding the
live tiles (`plan.expand`), arithmetic on tensors (`backends.tiled`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from patternc.ir.evaluate import Ints, Point, Tables, evaluate
from patternc.ir.floats import inputs_of
from patternc.ir.nodes import (
    Attention,
    Axis,
    BoolExpr,
    FloatExpr,
    LabelOrder,
    WeightKind,
)
from patternc.ir.walk import tables_of
from patternc.plan.expand import (
    LISTED,
    LiveTiles,
    head_classes,
    live_tiles,
)
from patternc.plan.kernel import Kernel, Schedule, TileCover

SCORES_AT_ONCE = 1 << 19
"""Scores held at a time, in elements, unless one query tile alone has more."""

KEPT_PAIRS = 1 << 24
"""Visibility computed once a call, in pairs (bytes); more is computed at each use."""

KEPT_BYTES = 1 << 26
"""What a cache keeps, all calls together."""

KEPT_CALLS = 8
"""Calls of different sizes whose grouping is kept."""


@dataclass(frozen=True, slots=True)
class Call:
    """The sizes of a call, where it runs and what its inputs hold.

    `batched` names the inputs that differ between batch elements; `digests` stand for
    the values of those that are not floating, `table_bytes` for their size.
    """

    batch: int
    n_q: int
    n_k: int
    q_offset: int
    params: tuple[tuple[str, int], ...]
    device: torch.device
    batched: frozenset[str] = frozenset()
    digests: tuple[bytes, ...] = ()
    table_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Key columns `[start, stop)` of a chunk in which `test` decides each pair."""

    start: int
    stop: int
    test: BoolExpr


@dataclass(frozen=True, slots=True)
class Chunk:
    """T query tiles of R rows, each of which reaches C keys.

    `rows` [T, R] and `keys` [T, C] number the rows and keys of the call, int64.
    `first_row` is set if the rows are consecutive, `first_key` if there is one query
    tile and its keys are: then a slice does for a gather. `kept` holds the visibility
    of the `runs`, one bool [T, R, stop - start] each, or None if it is computed at
    each use.
    """

    rows: Tensor
    keys: Tensor
    first_row: int | None
    first_key: int | None
    runs: tuple[Run, ...]
    head: int
    call: Call
    tables: Tables
    kept: tuple[Tensor, ...] | None = None

    @property
    def tested_pairs(self) -> int:
        """How many pairs the runs test."""
        return self.rows.numel() * sum(run.stop - run.start for run in self.runs)

    @property
    def size(self) -> int:
        """How much memory it holds, in bytes."""
        held = (self.rows, self.keys, *(self.kept or ()))
        return sum(tensor.nbytes for tensor in held)

    @property
    def may_be_empty(self) -> bool:
        """Whether some row may see no key: every column is tested."""
        return self.tested_pairs == self.rows.numel() * self.keys.shape[1]

    def visibility(self) -> tuple[Tensor, ...]:
        """For each run whether its test holds, bool [T, R, stop - start]."""
        if self.kept is not None:
            return self.kept
        rows, keys, call = self.rows.cpu().numpy(), self.keys.cpu().numpy(), self.call
        found = []
        for run in self.runs:
            axes: dict[Axis, int | Ints] = {
                Axis.QUERY: rows[:, :, None] + call.q_offset,
                Axis.KEY: keys[:, None, run.start : run.stop],
                Axis.HEAD: self.head,
                Axis.LENGTH: call.n_k,
            }
            at = Point(axes, dict(call.params), self.tables)
            seen = evaluate(run.test, at)
            seen = np.broadcast_to(seen, (*rows.shape, run.stop - run.start))
            found.append(torch.from_numpy(seen.copy()).to(call.device))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Weighing:
    """How a head's logits become weights: a score in their place, then a function."""

    score: FloatExpr | None = None
    kind: WeightKind = WeightKind.SOFTMAX
    argument: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Heads with the same tiles, mask and weighing, `share` for each key/value head.

    `heads` lists them by key/value head; `kv_heads` lists those. `elements` are the
    batch elements that it is computed for.
    """

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    share: int
    chunks: tuple[Chunk, ...]
    elements: range
    weighing: Weighing


@dataclass(frozen=True, slots=True)
class ChunkCache:
    """The groups of the last few calls; bounded in number and in size."""

    kept: OrderedDict[Call, tuple[Group, ...]] = field(default_factory=OrderedDict)

    def groups(
        self, kernel: Kernel, call: Call, tables: Sequence[Tables] = ({},)
    ) -> tuple[Group, ...]:
        """The groups of a call of `kernel`, always the same one for a cache."""
        found = self.kept.pop(call, None)
        if found is None:
            found = groups_of(kernel, call, tables)
        self.kept[call] = found
        sizes = [
            other.table_bytes
            + sum(chunk.size for group in groups for chunk in group.chunks)
            for other, groups in self.kept.items()
        ]
        while len(sizes) > KEPT_CALLS or sum(sizes) > KEPT_BYTES:
            self.kept.popitem(last=False)
            del sizes[0]
        return found


def digests_of(tables: Sequence[Tables]) -> tuple[bytes, ...]:
    """A digest of the values, shape and name of every table."""
    found = []
    for own in tables:
        for name, table in sorted(own.items()):
            state = hashlib.blake2b(f"{name} {table.shape}".encode(), digest_size=16)
            state.update(table.tobytes())
            found.append(state.digest())
    return tuple(found)


def groups_of(
    kernel: Kernel, call: Call, tables: Sequence[Tables] = ({},)
) -> tuple[Group, ...]:
    """Every head in exactly one group for each batch element.

    `tables` holds the inputs that are not floating, without a batch axis: those of
    each batch element, or one item if they are the same for all.
    """
    groups = []
    room = KEPT_PAIRS
    size = kernel.attention.group_size
    for cover, same, weighing in _classes(kernel, tables[0]):
        for elements in _elements(cover, weighing, call):
            own = tables[elements.start % len(tables)]
            for heads, kv_heads, share in _by_share(same, size):
                chunks = []
                copies = len(elements) * len(heads)
                site = _Site(cover, kernel.schedule, heads[0], call, own)
                for chunk in site.chunks(copies):
                    if chunk.tested_pairs <= room:
                        room -= chunk.tested_pairs
                        chunk = replace(chunk, kept=chunk.visibility())
                    chunks.append(chunk)
                found = tuple(chunks)
                groups.append(Group(heads, kv_heads, share, found, elements, weighing))
    return tuple(groups)


def weighing_of(attention: Attention, head: int) -> Weighing:
    """How the logits of a query head become weights."""
    scores = [case.score for case in attention.scores if head in case.heads]
    weights = [case for case in attention.weights if head in case.heads]
    score = scores[0] if scores else None
    if not weights:
        return Weighing(score)
    return Weighing(score, weights[0].kind, weights[0].argument)


def _classes(
    kernel: Kernel, tables: Tables
) -> Iterator[tuple[TileCover, tuple[int, ...], Weighing]]:
    """Heads that are computed together, with their cover and weighing."""
    for cover in kernel.covers:
        classes = head_classes(cover)
        if any(np.ndim(tables[name]) > 1 for name in _labels(cover)):
            classes = tuple((head,) for head in cover.heads)  # labels of each head
        for same in classes:
            by_weighing: dict[Weighing, list[int]] = {}
            for head in same:
                own = weighing_of(kernel.attention, head)
                by_weighing.setdefault(own, []).append(head)
            for weighing, heads in by_weighing.items():
                yield cover, tuple(heads), weighing


def _labels(cover: TileCover) -> list[str]:
    """The inputs that the order of a cover reads."""
    orders = (case.order for case in cover.order)
    return [order.table for order in orders if isinstance(order, LabelOrder)]


def _elements(cover: TileCover, weighing: Weighing, call: Call) -> list[range]:
    """The batch elements that are computed together: all, unless an input differs."""
    read = tables_of(cover.mask).union(_labels(cover))
    if weighing.score is not None:
        read |= inputs_of(weighing.score)
    if read & call.batched:
        return [range(element, element + 1) for element in range(call.batch)]
    return [range(call.batch)]


def _by_share(
    heads: tuple[int, ...], group_size: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Heads, their key/value heads, and how many to each, the same for all of them."""
    by_kv: dict[int, list[int]] = {}
    for head in sorted(heads):
        by_kv.setdefault(head // group_size, []).append(head)
    for share in sorted({len(members) for members in by_kv.values()}):
        kv_heads = tuple(kv for kv, members in by_kv.items() if len(members) == share)
        yield tuple(head for kv in kv_heads for head in by_kv[kv]), kv_heads, share


@dataclass(frozen=True, slots=True)
class _Site:
    """One head of a cover in a call, for batch elements that see the same tables."""

    cover: TileCover
    schedule: Schedule
    head: int
    call: Call
    tables: Tables

    def chunks(self, copies: int) -> Iterator[Chunk]:
        """The query tiles that have keys, those of one shape together.

        Cut so that the scores of `copies` heads and batch elements fit
        `SCORES_AT_ONCE`.
        """
        tiles, call = _by_key(self._live()), self.call
        block_k = self.schedule.block_k
        tests = np.where(tiles.partial, tiles.part, _NO_TEST)
        widths = np.minimum(block_k, call.n_k - tiles.kt * block_k)
        for members in self._same_shape(tiles, tests, widths):
            part = members[0][1]
            inside = np.concatenate([np.arange(width) for width in widths[part]])
            tile_of = np.repeat(np.arange(part.stop - part.start), widths[part])
            runs = _runs(self.cover, tests[part][tile_of])
            block = copies * len(members[0][0]) * len(inside)
            count = max(1, SCORES_AT_ONCE // max(1, block))
            for start in range(0, len(members), count):
                chosen = members[start : start + count]
                rows = np.stack([rows for rows, _ in chosen])
                key_tiles = np.stack([tiles.kt[where] for _, where in chosen])
                keys = key_tiles[:, tile_of] * block_k + inside
                if tiles.tokens is not None:
                    rows, keys = tiles.tokens[rows], tiles.tokens[keys]
                yield Chunk(
                    torch.from_numpy(rows).to(call.device),
                    torch.from_numpy(keys).to(call.device),
                    _first_of_range(rows),
                    _first_of_range(keys),
                    runs,
                    self.head,
                    call,
                    self.tables,
                )

    def _live(self) -> LiveTiles:
        call = self.call
        return live_tiles(
            self.cover,
            self.schedule,
            self.head,
            call.n_q,
            call.n_k,
            call.q_offset,
            dict(call.params),
            self.tables,
        )

    def _same_shape(
        self, tiles: LiveTiles, tests: Ints, widths: Ints
    ) -> Iterable[list[tuple[Ints, slice]]]:
        """Rows and places in `tiles` of query tiles, those of one shape together."""
        block_q, call = self.schedule.block_q, self.call
        query_tiles, starts = np.unique(tiles.qt, return_index=True)
        stops = np.append(starts, len(tiles.qt))[1:].tolist()
        members: dict[tuple[int, bytes, bytes], list[tuple[Ints, slice]]] = {}
        for qt, start, stop in zip(
            query_tiles.tolist(), starts.tolist(), stops, strict=True
        ):
            first = qt * block_q - call.q_offset
            rows = np.arange(max(first, 0), min(first + block_q, call.n_q))
            part = slice(start, stop)
            shape = (len(rows), widths[part].tobytes(), tests[part].tobytes())
            members.setdefault(shape, []).append((rows, part))
        return members.values()


_NO_TEST = LISTED - 1
"""In the place of a range number: the tile is full."""


def _by_key(tiles: LiveTiles) -> LiveTiles:
    """The tiles of a query tile in key order, so that neighbours can be sliced."""
    order = np.lexsort((tiles.kt, tiles.qt))
    return replace(
        tiles,
        qt=tiles.qt[order],
        kt=tiles.kt[order],
        partial=tiles.partial[order],
        part=tiles.part[order],
    )


def _runs(cover: TileCover, tests: Ints) -> tuple[Run, ...]:
    """The maximal ranges of columns under one test; full tiles have none."""
    edges = [0, *(np.flatnonzero(np.diff(tests)) + 1).tolist(), len(tests)]
    runs = []
    for start, stop in pairwise(edges):
        number = int(tests[start])
        if number == _NO_TEST:
            continue
        if number == LISTED or cover.ranges is None:
            runs.append(Run(start, stop, cover.mask))
        else:
            runs.append(Run(start, stop, cover.ranges[number].residual))
    return tuple(runs)


def _first_of_range(numbers: Ints) -> int | None:
    """The first number if they count up by one, read row by row, else None."""
    flat = numbers.reshape(-1)
    return int(flat[0]) if (np.diff(flat) == 1).all() else None
