"""How much tile work an order of the tokens makes, by looking at some query tiles.

In: a mask, an order, a length. Out: the share of the tiles of the sampled rows that
would be visited. Not its job: choosing an order (`passes.reorder`), and the tiles of a
call, which are never sampled (`plan.expand`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from patternc.ir.evaluate import Ints
from patternc.ir.nodes import BoolExpr, Layout, OrderCase
from patternc.plan.expand import tile_positions
from patternc.plan.kernel import Schedule
from patternc.plan.order import token_order
from patternc.plan.quadtree import Question, list_tiles, tiles_at_most

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Workload:
    """A mask without inputs, at some heads and one length, N queries and N keys."""

    mask: BoolExpr
    heads: tuple[int, ...]
    length: int
    layout: Layout | None
    schedule: Schedule
    params: Mapping[str, int]

    def share_at_most(self, order: tuple[OrderCase, ...], rows: int) -> float:
        """Tiles that intervals can't prove empty, over all: cheap, and never too low.

        In about `rows` query tiles of each head.
        """
        counts = [tiles_at_most(question) for question in self._questions(order, rows)]
        return sum(counts) / self._tiles(rows)

    def visited_share(self, order: tuple[OrderCase, ...], rows: int) -> float:
        """Visited tiles over all tiles, in about `rows` query tiles of each head."""
        counts = [list_tiles(item).qt.size for item in self._questions(order, rows)]
        return sum(counts) / self._tiles(rows)

    def _tiles(self, rows: int) -> int:
        """All tiles of the sampled rows of all heads."""
        key_tiles = -(-self.length // self.schedule.block_k)
        return self._sample(rows).size * key_tiles * len(self.heads)

    def _sample(self, rows: int) -> Ints:
        """One query tile of each of `rows` equal parts.

        Where in its part goes by the golden ratio: a sample at regular places would
        always meet the boxes of an order at the same side.
        """
        every = -(-self.length // self.schedule.block_q)
        part = np.arange(rows)
        return np.unique(((part + part * _GOLDEN % 1) * every / rows).astype(np.int64))

    def _questions(self, order: tuple[OrderCase, ...], rows: int) -> Iterator[Question]:
        tokens = token_order(order, self.layout, self.length)
        tiles = []
        for block in (self.schedule.block_q, self.schedule.block_k):
            every = range(-(-self.length // block))
            tiles.append(tokens[tile_positions(every, block, 0, self.length)])
        queries, keys = tiles[0][self._sample(rows)], tiles[1]
        for head in self.heads:
            yield Question(self.mask, head, self.length, queries, keys, self.params, {})
