"""Every row of the suite: one mask in the program and in each peer, and it runs."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from patternc.attention import Attention
from patternc.bench.measure import density, distance, draw, tile_density
from patternc.bench.peers import Absent, Site
from patternc.bench.record import FA3, FLASH, FLEX, OURS, Shape
from patternc.bench.suite import ROWS, Row, Sizes, row_named

CPU = torch.device("cpu")
N, SHRINK = 256, 64
LISTS = (
    "kv_num_blocks",
    "kv_indices",
    "full_kv_num_blocks",
    "full_kv_indices",
    "q_num_blocks",
    "full_q_num_blocks",
)


def site_of(row: Row, *, length: int = N) -> Site:
    heads = 8 if row.share > 1 else 2
    return Site.of(row, Sizes(heads, heads // row.share, length, SHRINK), CPU)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_masks_are_one(row: Row) -> None:
    site = site_of(row)
    trace, heads = site.trace(), site.sizes.heads
    inputs: dict[str, Any] = {
        name: item[None] for name, item in site.pattern.inputs.items()
    }
    seen = Attention(trace).mask(N, N, **inputs).reshape(heads, N, N)
    flex = site.pattern.flex or (lambda b, h, q, k: q >= 0)
    wanted = create_mask(flex, None, heads, N, N, device="cpu")[0]
    assert torch.equal(seen, wanted)
    share = density(site, trace.kernel)
    assert share == pytest.approx(float(wanted.double().mean()), abs=1e-12)
    assert share <= tile_density(site, trace.kernel) <= 1
    if row.sdpa:
        ones = torch.ones(N, N, dtype=torch.bool)
        assert torch.equal(seen[0], ones if row.sdpa == "dense" else ones.tril())
    varies = not torch.equal(wanted, wanted[:1].expand_as(wanted))
    assert varies == row.per_head


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("block", [16, 128])
def test_a_block_mask_is_what_flex_would_make(row: Row, block: int) -> None:
    site = site_of(row)
    found, flex = site.blocks(block), site.pattern.flex
    if flex is None:
        assert found is None
        return
    heads = site.sizes.heads if row.per_head else None
    wanted = create_block_mask(flex, None, heads, N, N, device="cpu", BLOCK_SIZE=block)
    for name in LISTS:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_results_agree(row: Row) -> None:
    """Ours in Triton's interpreter, FlexAttention eager, SDPA where it computes it."""
    site = site_of(row)
    shape = Shape(1, site.sizes.heads, site.sizes.kv_heads, N, 64, "float32")
    q, k, v = draw(shape, CPU)
    ours = site.prepare(OURS)(q, k, v)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eager FlexAttention says that it is slow
        flex = site.prepare(FLEX)(q, k, v)
    assert distance((flex,), (ours,)) < 1e-5
    if row.sdpa:
        assert distance((site.prepare(FLASH)(q, k, v),), (ours,)) < 1e-5
    else:
        with pytest.raises(Absent, match="n_q x n_k mask"):
            site.prepare(FLASH)


def test_a_distance_sees_the_worst_of_three() -> None:
    ones = torch.ones(4)
    assert distance((ones, ones, 2 * ones), (ones, ones, ones)) == pytest.approx(1)


def test_full_size_rows_compile_to_the_tiles_of_the_report() -> None:
    """Those that a measurement on a GPU saw, of 128 x 128 pairs."""
    for name, share in (("causal", 0.504), ("window_1024", 0.068), ("dilated", 0.2256)):
        row = next(row for row in ROWS if row.name.startswith(name))
        blocks = Site.of(row, Sizes(32, 32, 16384), CPU).blocks()
        assert blocks is not None
        live = blocks.to_dense().sum()
        assert float(live) / 128**2 == pytest.approx(share, abs=5e-4)


def test_what_is_no_row_or_no_video() -> None:
    with pytest.raises(ValueError, match="rows are dense"):
        row_named("windows")
    with pytest.raises(ValueError, match="no square video has 1000 tokens"):
        site_of(row_named("sliding_tile"), length=1000)


def test_a_package_that_is_absent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fa3_fwd_interface", None)
    with pytest.raises(Absent, match="fa3_fwd is not usable"):
        site_of(row_named("causal")).prepare(FA3)
