"""Live tiles grouped into batches of equal shape, for the tiled backend.

In: a planned kernel and the sizes of a call. Out: for each class of heads with one
mask, chunks: query tiles that reach equally many keys, with row and key numbers to
gather by and the visibility of the tiles that need the mask. Not its job: finding
the live tiles (`plan.expand`), arithmetic on tensors (`backends.tiled`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from patternc.ir.evaluate import Ints, Point, evaluate
from patternc.ir.nodes import Axis, BoolExpr
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
"""Visibility computed only once a call, in pairs (bytes); more is computed at each use."""

KEPT_BYTES = 1 << 26
"""What a cache keeps, all calls together."""

KEPT_CALLS = 8
"""Calls of different sizes whose grouping is kept."""


@dataclass(frozen=True, slots=True)
class Call:
    """The sizes of a call and where it runs."""

    batch: int
    n_q: int
    n_k: int
    q_offset: int
    params: tuple[tuple[str, int], ...]
    device: torch.device


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
            seen = evaluate(run.test, Point(axes, dict(call.params)))
            seen = np.broadcast_to(seen, (*rows.shape, run.stop - run.start))
            found.append(torch.from_numpy(seen.copy()).to(call.device))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Group:
    """Heads with the same tiles and mask, `share` of them for each key/value head.

    `heads` lists them by key/value head; `kv_heads` lists those.
    """

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    share: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class ChunkCache:
    """The groups of the last few calls; bounded in number and in size."""

    kept: OrderedDict[Call, tuple[Group, ...]] = field(default_factory=OrderedDict)

    def groups(self, kernel: Kernel, call: Call) -> tuple[Group, ...]:
        """The groups of a call of `kernel`, always the same one for a cache."""
        found = self.kept.pop(call, None)
        if found is None:
            found = groups_of(kernel, call)
        self.kept[call] = found
        sizes = [
            sum(chunk.size for group in groups for chunk in group.chunks)
            for groups in self.kept.values()
        ]
        while len(sizes) > KEPT_CALLS or sum(sizes) > KEPT_BYTES:
            self.kept.popitem(last=False)
            del sizes[0]
        return found


def groups_of(kernel: Kernel, call: Call) -> tuple[Group, ...]:
    """Every head in exactly one group."""
    groups = []
    room = KEPT_PAIRS
    size = kernel.attention.group_size
    for cover in kernel.covers:
        for same in head_classes(cover):
            for heads, kv_heads, share in _by_share(same, size):
                chunks = []
                copies = call.batch * len(heads)
                for chunk in _chunks(cover, kernel.schedule, heads[0], call, copies):
                    if chunk.tested_pairs <= room:
                        room -= chunk.tested_pairs
                        chunk = replace(chunk, kept=chunk.visibility())
                    chunks.append(chunk)
                groups.append(Group(heads, kv_heads, share, tuple(chunks)))
    return tuple(groups)


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


def _chunks(
    cover: TileCover, schedule: Schedule, head: int, call: Call, copies: int
) -> Iterator[Chunk]:
    """The query tiles of a head that have keys, those of one shape together.

    Cut so that the scores of `copies` heads and batch entries fit `SCORES_AT_ONCE`.
    """
    params = dict(call.params)
    tiles = _by_key(
        live_tiles(cover, schedule, head, call.n_q, call.n_k, call.q_offset, params)
    )
    tests = np.where(tiles.partial, tiles.part, _NO_TEST)
    widths = np.minimum(schedule.block_k, call.n_k - tiles.kt * schedule.block_k)
    for members in _same_shape(tiles, tests, widths, schedule, call):
        part = members[0][1]
        inside = np.concatenate([np.arange(width) for width in widths[part]])
        tile_of = np.repeat(np.arange(part.stop - part.start), widths[part])
        runs = _runs(cover, tests[part][tile_of])
        block = copies * len(members[0][0]) * len(inside)
        count = max(1, SCORES_AT_ONCE // max(1, block))
        for start in range(0, len(members), count):
            chosen = members[start : start + count]
            rows = np.stack([rows for rows, _ in chosen])
            key_tiles = np.stack([tiles.kt[where] for _, where in chosen])
            keys = key_tiles[:, tile_of] * schedule.block_k + inside
            yield Chunk(
                torch.from_numpy(rows).to(call.device),
                torch.from_numpy(keys).to(call.device),
                _first_of_range(rows),
                _first_of_range(keys),
                runs,
                head,
                call,
            )


def _same_shape(
    tiles: LiveTiles, tests: Ints, widths: Ints, schedule: Schedule, call: Call
) -> Iterable[list[tuple[Ints, slice]]]:
    """Rows and places in `tiles` of each query tile, those of one shape together."""
    query_tiles, starts = np.unique(tiles.qt, return_index=True)
    stops = np.append(starts, len(tiles.qt))[1:].tolist()
    members: dict[tuple[int, bytes, bytes], list[tuple[Ints, slice]]] = {}
    for qt, start, stop in zip(
        query_tiles.tolist(), starts.tolist(), stops, strict=True
    ):
        first = qt * schedule.block_q - call.q_offset
        rows = np.arange(max(first, 0), min(first + schedule.block_q, call.n_q))
        part = slice(start, stop)
        shape = (len(rows), widths[part].tobytes(), tests[part].tobytes())
        members.setdefault(shape, []).append((rows, part))
    return members.values()


_NO_TEST = LISTED - 1
"""In the place of a range number: the tile is full."""


def _by_key(tiles: LiveTiles) -> LiveTiles:
    """The tiles of a query tile in key order, so that neighbours can be sliced."""
    order = np.lexsort((tiles.kt, tiles.qt))
    return LiveTiles(
        tiles.qt[order], tiles.kt[order], tiles.partial[order], tiles.part[order]
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
