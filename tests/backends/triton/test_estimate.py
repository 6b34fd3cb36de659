"""Sums of a probe's scores by column, diagonal and block, and pooling.

Against the dense map in plain PyTorch, with row tiles and key tiles that are ragged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc.ir.nodes import (
    HEAD,
    KEY,
    All,
    Binary,
    Compare,
    CompareOp,
    Const,
    IntOp,
    Param,
)
from tests.backends.triton.planning import module_of
from tests.kernels import CAUSAL

N_Q, N_K, OFFSET = 50, 90, 40
FIRST, LAST = 62, 90  # the rows of the probe
SCALE, SHIFT = 0.2, 5

# k <= q, and not every third key, by head and a run-time parameter.
PLACE = Binary(IntOp.ADD, Binary(IntOp.ADD, KEY, HEAD), Param("shift"))
THIRD = Compare(CompareOp.NE, Binary(IntOp.MOD, PLACE, Const(3)), Const(0))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("estimate")
    found = module_of(All((CAUSAL, THIRD)), folder, ("shift",))
    vars(found).update(
        ROW_TILE=16,
        KEY_TILE=32,
        DIAGONAL_TILE=32,
        DIAGONAL_STEPS=3,
        PART_ROWS=16,
        PART_TILE=32,
    )
    vars(found).update(PARTS_AT_ONCE=200, JOIN_TILE=16)
    yield found


def tensors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, N_Q, 24, generator=generator)
    return q, torch.randn(1, 1, N_K, 24, generator=generator)


def probe_of(module: ModuleType, is_softmax: bool) -> Any:
    q, k = tensors()
    return module.Probe(
        module.MAP_0, q, k, SCALE, OFFSET, FIRST, LAST, (SHIFT,), is_softmax
    )


def dense(is_softmax: bool) -> tuple[Tensor, Tensor]:
    """The map's values and its pairs, [1, H, rows, keys]."""
    q, k = tensors()
    rows = torch.arange(FIRST, LAST)[:, None]
    keys, heads = torch.arange(N_K), torch.arange(2)[:, None, None]
    seen = (keys <= rows) & ((keys + heads + SHIFT) % 3 != 0)
    s = q[:, :, FIRST - OFFSET : LAST - OFFSET] @ k.transpose(2, 3) * SCALE
    if is_softmax:
        s = torch.softmax(torch.where(seen, s, -math.inf), 3)
    return s, seen[None]


def grouped(
    group: Tensor, count: int, how: str, is_softmax: bool
) -> tuple[Tensor, Tensor]:
    """What each group's pairs come to, and how many there are."""
    values, seen = dense(is_softmax)
    neutral = {"sum": 0.0, "max": -math.inf, "min": math.inf}[how]
    flat = torch.where(seen, values, neutral).flatten(2)
    found = torch.full((1, 2, count), neutral)
    place = group.flatten().expand_as(flat)
    word = "sum" if how == "sum" else f"a{how}"
    found.scatter_reduce_(2, place, flat, word)
    counts = torch.zeros(1, 2, count, dtype=torch.int64)
    counts.scatter_add_(2, place, seen.flatten(2).to(torch.int64).expand_as(flat))
    return found, counts.to(torch.int32)


ROWS, KEYS = torch.meshgrid(torch.arange(FIRST, LAST), torch.arange(N_K), indexing="ij")


@pytest.mark.parametrize("how", ["sum", "max", "min"])
def test_by_column(module: ModuleType, how: str) -> None:
    is_softmax = how == "sum"
    probe = probe_of(module, is_softmax)
    wanted = grouped(KEYS, N_K, how, is_softmax)
    torch.testing.assert_close(probe.by_column(how, 1), wanted)
    if how != "min":
        wanted = grouped(KEYS // 7, 13, how, is_softmax)
        torch.testing.assert_close(probe.by_column(how, 7), wanted)


@pytest.mark.parametrize("is_anti", [False, True])
def test_by_diagonal(module: ModuleType, is_anti: bool) -> None:
    """From a base that is below the first one, up to one that is above the last."""
    how, place = ("max", ROWS + KEYS) if is_anti else ("sum", ROWS - KEYS)
    base = int(place.min()) - 2
    count = int(place.max()) - base + 4
    found = probe_of(module, not is_anti).by_diagonal(how, base, count, is_anti)
    torch.testing.assert_close(found, grouped(place - base, count, how, not is_anti))


@pytest.mark.parametrize("key_block", [8, 48, 64])
def test_by_block(module: ModuleType, key_block: int) -> None:
    """Blocks of less than a tile of keys, of one and a half, of two; rows in turn."""
    how, row_block = ("sum" if key_block == 8 else "max"), 12
    first, key_blocks = FIRST // row_block, math.ceil(N_K / key_block)
    place = (ROWS // row_block - first) * key_blocks + KEYS // key_block
    found = probe_of(module, how == "sum").by_block(how, row_block, key_block)
    wanted = grouped(place, found[0].shape[2] * key_blocks, how, how == "sum")
    torch.testing.assert_close(tuple(x.flatten(2) for x in found), wanted)


def test_strided(tmp_path: Path) -> None:
    """Antidiagonal sums: rows and keys of 4 tokens, of which the last ones lack some."""
    module = module_of(CAUSAL, tmp_path)
    vars(module).update(PART_ROWS=16, PART_TILE=16, PARTS_AT_ONCE=100, JOIN_TILE=16)
    q, k = tensors()
    k = k[:, :, :89]
    first, last = OFFSET // 4, (OFFSET + N_Q - 1) // 4 + 1
    probe = module.Probe(
        module.MAP_0, q, k, SCALE, OFFSET, first, last, (), True, stride=4, residue=1
    )
    rows, keys = torch.arange(OFFSET, OFFSET + N_Q)[:, None], torch.arange(89)
    live = (rows + keys) % 4 == 1
    at = ((rows // 4 - first) * 23 + keys // 4).flatten().expand(1, 2, -1)
    sums, pairs = torch.zeros(2, 1, 2, (last - first) * 23).unbind(0)
    products = torch.where(live, q @ k.mT * SCALE, 0.0)
    sums.scatter_add_(2, at, products.flatten(2))
    pairs.scatter_add_(2, at, live.float().flatten().expand_as(at))
    strides = torch.arange(first, last)[:, None]
    sizes = (1, 2, last - first, 23)
    seen = (pairs > 0).view(sizes) & (torch.arange(23) <= strides)
    shown = torch.where(seen, sums.view(sizes), -math.inf)
    shares = torch.softmax(shown, 3)
    wanted = torch.nn.functional.pad(shares, (0, 1)).view(*sizes[:3], 3, 8).sum(4)
    blocks = (strides // 3 - first // 3).flatten()
    wanted = torch.zeros(1, 2, int(blocks[-1]) + 1, 3).index_add(2, blocks, wanted)
    torch.testing.assert_close(probe.by_block("sum", 3, 8)[0], wanted)


def test_rows_without_pairs_weigh_nothing(module: ModuleType) -> None:
    q, k = tensors()
    probe = module.Probe(module.MAP_0, q, k, SCALE, -30, -30, -20, (SHIFT,), True)
    values, counts = probe.by_column("sum", 1)
    assert not bool(values.any()) and not bool(counts.any())


def test_nan_reaches_the_sums_of_its_pairs_alone(module: ModuleType) -> None:
    q, k = tensors()
    k[0, 0, 89] = math.nan  # a pair of the last row and head 1 alone: 89 + 5 = 94
    probe = module.Probe(
        module.MAP_0, q, k, SCALE, OFFSET, FIRST, LAST, (SHIFT,), False
    )
    values, _ = probe.by_column("max", 1)
    assert values.isnan().nonzero().tolist() == [[0, 0, 89], [0, 1, 89]]


@pytest.mark.parametrize("how", ["sum", "mean", "max", "min"])
def test_pooling(module: ModuleType, how: str) -> None:
    q, _ = tensors()
    found = module.pool(q, how, 12, OFFSET)
    block = (torch.arange(N_Q) + OFFSET) // 12
    function = getattr(torch.Tensor, f"a{how}" if how in ("max", "min") else how)
    blocks = range(int(block[0]), int(block[-1]) + 1)
    wanted = [function(q[:, :, block == at], 2) for at in blocks]
    torch.testing.assert_close(found, torch.stack(wanted, 2))
    counts = module.rows_of_blocks(q, 12, OFFSET)
    assert counts.tolist() == [int((block == at).sum()) for at in blocks]
