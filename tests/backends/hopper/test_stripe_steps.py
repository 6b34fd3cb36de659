"""What a query tile visits where inputs choose diagonals and columns, step by step.

Scalar functions of the kernel are run as plain Python on what the module lists, its
tests of pairs in PyTorch beside them: a kernel in Gluon has no interpreter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.backends.hopper.programs import module_of, text_of
from tests.backends.hopper.scalar import Place, functions

CALLS = [(700, 900, 200), (150, 1300, 1000), (300, 301, -100)]


def wanted_of(
    name: str, inputs: dict[str, Tensor], b: int, h: int, q: Tensor, k: Tensor
) -> Tensor:
    """The mask of a program, dense."""
    diagonals = inputs["diagonals"][min(b, len(inputs["diagonals"]) - 1)][h]
    shift = {"slash": 0, "far": 450, "bands": 100}[name]
    place = q - k + shift
    inside = (place >= 0) & (place < len(diagonals))
    seen = inside & diagonals[place.clamp(0, len(diagonals) - 1)]
    if name == "slash":
        seen |= q - k < 3
    if name == "slash" or (name == "far" and h < 2):
        columns = inputs["columns"][min(b, len(inputs["columns"]) - 1)][h]
        seen |= columns[k]
    if name == "slash":
        seen &= k <= q
    if name == "far":
        seen &= (q - k).abs() < 300
    return seen


def inputs_of(name: str, n_k: int) -> dict[str, Tensor]:
    """Clusters of diagonals, single ones, and a few columns."""
    batch = 1 if name == "far" else 2
    size = {"slash": 700, "far": 900, "bands": 500}[name]
    diagonals = torch.rand(batch, 4, size) < 0.01
    diagonals[:, 1, 40:240] = True
    diagonals[:, 2] = False
    found = {"diagonals": diagonals}
    if name != "bands":
        found["columns"] = torch.rand(batch, 4, n_k) < 0.2
    return found


@pytest.mark.parametrize(("n_q", "n_k", "q_offset"), CALLS)
@pytest.mark.parametrize("name", ["slash", "far", "bands"])
def test_every_visible_pair_is_seen_once(
    name: str, n_q: int, n_k: int, q_offset: int, tmp_path: Path
) -> None:
    torch.manual_seed(n_q)
    module = module_of(name, tmp_path)
    called = functions(text_of(name), "granule_steps", "granules_from")
    inputs = inputs_of(name, n_k)
    values = {"near": 300} if name == "far" else {}
    pointers = module.as_pointers(inputs)
    sizes = (n_q, n_k, q_offset)
    stripes = module.stripes_of(*sizes, values, pointers, pointers[0].device)
    found = module.granules_of(stripes, *sizes)
    assert module.kept_granules(stripes, *sizes)[0] is not None
    q = torch.arange(q_offset, q_offset + n_q)[:, None]
    k = torch.arange(n_k)[None]
    first, tiles = module.tiles_of(n_q, q_offset, 128)
    for b in range(2 if name != "far" else 1):
        for h in range(4):
            seen = torch.zeros(n_q, n_k, dtype=torch.int32)
            for qt in range(first, first + tiles):
                about = (qt, h, b, first, tiles, Place(found[0]), stripes[9], 128)
                steps = called["granule_steps"](*about)
                for part in (0, 1):
                    tile = Tile(qt * 128, part, n_k, found, stripes, called)
                    keys, hit = tile.visited(steps)
                    rows = tile.rows - q_offset
                    inside = (rows >= 0) & (rows < n_q)
                    visited = torch.zeros(len(rows), n_k, dtype=torch.int32)
                    at = keys.expand(len(rows), -1)
                    visited.scatter_add_(1, at.clamp(max=n_k - 1), hit.int())
                    if steps[2] and name != "bands":
                        column = tile.columns(steps)
                        within = column <= tile.rows[:, None]
                        if name == "far":
                            within = (tile.rows[:, None] - column).abs() < 300
                        also = within & ~tile.on_diagonal(steps[0], column)
                        visited.scatter_add_(
                            1, column.expand(len(rows), -1), also.int()
                        )
                    seen[rows[inside]] += visited[inside]
            wanted = wanted_of(name, inputs, b, h, q, k)
            assert torch.equal(seen, wanted.int())


class Tile:
    """One half of a query tile."""

    def __init__(
        self,
        q0: int,
        part: int,
        n_k: int,
        found: tuple[Tensor, Tensor, Tensor, Tensor, int],
        stripes: Any,
        called: dict[str, Any],
    ) -> None:
        self.q0, self.part, self.n_k = q0, part, n_k
        self.found, self.stripes, self.called = found, stripes, called
        self.in_tile = part * 64 + torch.arange(64)
        self.rows = q0 + self.in_tile

    def visited(self, steps: Any) -> tuple[Tensor, Tensor]:
        """The keys of its steps of granules, and whether its rows see them."""
        row, n_both, n_columns, n_alone, ends = steps
        _, granules, words, _, first = self.found
        common = n_both + n_columns
        alone = range(common + self.part, common + 2 * n_alone, 2)
        keys, hits = [], []
        for t in (*range(n_both), *alone):
            at, left = self.called["granules_from"](t, n_both, n_columns, ends, 128)
            for nth in range(min(max(left, 0), 8)):
                k0 = self.q0 + (int(granules[row, at + nth]) - first) * 16
                assert k0 % 16 == 0 and 0 <= k0 < self.n_k
                key = k0 + torch.arange(16)
                word = words.view(len(granules), -1, 8)[row, at + nth]
                bits = word[self.in_tile // 16][:, None]
                shift = 16 - (self.in_tile & 15)[:, None] + torch.arange(16)
                keys.append(key)
                hits.append(((bits >> shift) & 1 > 0) & (key < self.n_k))
        if not keys:
            return torch.zeros(1, dtype=torch.int64), torch.zeros(64, 1)
        return torch.cat(keys)[None], torch.cat(hits, 1)

    def columns(self, steps: Any) -> Tensor:
        """The chosen keys of its steps of columns."""
        ends = steps[4]
        found: Tensor = self.stripes[4][steps[0], ends[6] : ends[7]]
        assert steps[2] == -(-len(found) // 128)
        return found[None].long()

    def on_diagonal(self, row: int, key: Tensor) -> Tensor:
        """Whether pairs are on a chosen diagonal."""
        _, _, _, diagonals, first = self.found
        ahead = key - self.q0 + first * 16
        word = diagonals[row][ahead // 16 + 8 - self.in_tile[:, None] // 16]
        return (word >> (16 - (self.in_tile & 15)[:, None] + ahead % 16)) & 1 > 0
