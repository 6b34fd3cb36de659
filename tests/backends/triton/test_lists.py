"""Tile lists that a generated module builds for the sizes of a call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.ir.evaluate import dense_mask
from patternc.plan.tiling import plan
from patternc.store import Store
from tests.backends.triton.programs import SMALL, kernel_of, module_of

CPU = torch.device("cpu")
N_Q, N_K, OFFSET = 70, 150, 41


def test_every_visible_pair_is_in_one_listed_tile(tmp_path: Path) -> None:
    ordered = kernel_of("mixed").attention
    kernel = plan(replace(ordered, orders=()), SMALL)
    text = emit(kernel, "", "mixed")
    module = import_file(Store(tmp_path).put(text, "mixed", ".py"))
    tiles, first, partial, full = module.build_lists(N_Q, N_K, OFFSET, {})
    assert (tiles.dtype, first.dtype) == (torch.int32, torch.int64)
    rows = np.arange(N_Q) + OFFSET
    for head in (0, 1, 3):
        mask = dense_mask(kernel.cover_of(head).mask, head, N_Q, N_K, OFFSET)
        covered = np.zeros_like(mask)
        for at in range(first.shape[1]):
            inside = rows // SMALL.block_q == OFFSET // SMALL.block_q + at
            start, n_partial = int(first[head, at]), int(partial[head, at])
            listed = tiles[start : start + n_partial + int(full[head, at])].tolist()
            assert len(set(listed)) == len(listed)
            for place, kt in enumerate(listed):
                keys = slice(kt * SMALL.block_k, (kt + 1) * SMALL.block_k)
                covered[inside, keys] = True
                if place >= n_partial:
                    assert mask[inside, keys].all()
        assert not (mask & ~covered).any()
    assert int(partial[2].sum() + full[2].sum()) == 0  # this head has ranges


def test_lists_are_kept_for_a_few_sizes(tmp_path: Path) -> None:
    module = module_of("listed", tmp_path)
    module.LISTS.clear()
    values = {"m": 900}
    newest = module.tile_lists(40, 40, 0, values, CPU)
    assert module.tile_lists(40, 40, 0, values, CPU) is newest
    assert module.tile_lists(40, 40, 0, {"m": 400}, CPU) is not newest
    for n_q in range(1, 30):
        module.tile_lists(n_q, 40, 0, values, CPU)
    assert len(module.LISTS) == module.MOST_LISTS


def test_cost_follows_the_live_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of("listed", tmp_path)
    looked_at = []
    plain = module.extents

    def counting(boxes: torch.Tensor, *sizes: int) -> object:
        looked_at.append(boxes.shape[1])
        return plain(boxes, *sizes)

    monkeypatch.setattr(module, "extents", counting)
    n = 1 << 16  # 2048 x 2048 tiles, about 2 live ones in each row
    tiles, *_ = module.build_lists(n, n, 0, {"m": 900})
    assert 2048 <= len(tiles) <= 3 * 2048
    assert sum(looked_at) <= 12 * len(tiles)
