"""The tile schedule in plain PyTorch, against the dense definition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor

from patternc.backends import chunks
from patternc.backends.protocol import LoadedAttention
from patternc.backends.reference import ReferenceBackend
from patternc.backends.tiled import TiledBackend
from patternc.ir.nodes import (
    FULL_PATTERN,
    Attention,
    BoolExpr,
    HeadCase,
    Param,
    RuntimeParam,
)
from patternc.plan.expand import live_tiles
from patternc.plan.kernel import Kernel, Schedule, TileCover
from patternc.plan.tiling import plan
from tests.kernels import (
    CAUSAL,
    SMALL,
    attention_of,
    kernel_of,
    per_head,
    streaming,
    two_groups,
    window,
)
from tests.strategies import PARAM, Size, attentions, schedules, sizes

MASKS = (CAUSAL, window(1), window(40), streaming(5, 20), per_head(7))
SIZES = ((1, 1), (40, 40), (33, 70), (70, 33), (1, 65), (64, 64))


def tensors(
    kernel: Kernel, n_q: int, n_k: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Seeded q, k, v of batch 2 and D 4."""
    generator = torch.Generator().manual_seed(n_q * 1000 + n_k)
    heads, kv = kernel.attention.heads, kernel.attention.kv_heads
    shapes = ((2, heads, n_q, 4), (2, kv, n_k, 4), (2, kv, n_k, 4))
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return q, k, v


def run(
    attention: LoadedAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_offset: int | None = None,
    params: dict[str, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Output and LSE at scale 1/2."""
    offset = k.shape[2] - q.shape[2] if q_offset is None else q_offset
    found = attention(
        q, k, v, scale=0.5, q_offset=offset, params=params or {}, return_lse=True
    )
    assert isinstance(found, tuple)
    return found


def assert_agrees(
    kernel: Kernel,
    n_q: int,
    n_k: int,
    q_offset: int | None = None,
    params: dict[str, int] | None = None,
) -> None:
    """Tiled is the reference in float64, gradients of output and LSE included."""
    results = []
    for backend in (TiledBackend(), ReferenceBackend()):
        q, k, v = (x.requires_grad_() for x in tensors(kernel, n_q, n_k))
        output, lse = run(backend.load(kernel), q, k, v, q_offset, params)
        loss = (output * torch.arange(4.0)).sum() + lse[lse > -math.inf].sin().sum()
        torch.autograd.backward(loss)
        results.append((output, lse, q.grad, k.grad, v.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("n_q", "n_k"), SIZES)
def test_it_is_the_reference(mask: BoolExpr, n_q: int, n_k: int) -> None:
    assert_agrees(kernel_of(mask, 4, 2), n_q, n_k)


@pytest.mark.parametrize("q_offset", [-100, -17, -1, 0, 3, 16, 50, 1000])
@pytest.mark.parametrize("mask", MASKS)
def test_any_offset_is_the_reference(mask: BoolExpr, q_offset: int) -> None:
    assert_agrees(kernel_of(mask), 35, 50, q_offset)


@given(attentions(affine=False, runtime=True), sizes, schedules)
def test_random_programs_are_the_reference(
    attention: Attention, size: Size, schedule: Schedule
) -> None:
    params = {item.name: item.default or 0 for item in attention.params}
    kernel = plan(attention, schedule)
    assert_agrees(kernel, size.n_q, size.n_k, size.q_offset, params)


def test_head_groups_that_split_a_kv_head_are_the_reference() -> None:
    assert_agrees(two_groups(), 50, 70)


def test_listed_tiles_are_the_reference() -> None:
    for mask in MASKS:
        attention = attention_of(mask)
        cover = TileCover((0, 1), mask, None, "for the test")
        assert_agrees(Kernel(attention, (cover,), SMALL), 40, 55)


def test_a_run_time_parameter_is_read_at_the_call() -> None:
    params = (RuntimeParam(PARAM, None),)
    kernel = plan(attention_of(window(Param(PARAM)), params=params), SMALL)
    for width in (0, 1, 17, 40):
        assert_agrees(kernel, 40, 50, params={PARAM: width})


def test_small_steps_and_no_cache_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "SCORES_AT_ONCE", 64)
    monkeypatch.setattr("patternc.backends.tile_sums.SCORES_AT_ONCE", 64)
    monkeypatch.setattr(chunks, "KEPT_PAIRS", 0)
    for mask in MASKS:
        assert_agrees(kernel_of(mask, 4, 2), 40, 55)


def test_gradients_are_those_of_finite_differences() -> None:
    kernel = kernel_of(window(3))
    q, k, v = (x.requires_grad_() for x in tensors(kernel, 6, 5))

    attention = TiledBackend().load(kernel)

    def both(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        output, lse = run(attention, q, k, v, q_offset=-1)
        return output, lse.nan_to_num(neginf=0.0)

    assert torch.autograd.gradcheck(both, (q, k, v))


def test_no_length_and_no_batch_are_no_error() -> None:
    kernel = kernel_of(CAUSAL)
    for n_q, n_k in ((0, 5), (5, 0), (0, 0)):
        assert_agrees(kernel, n_q, n_k)
    q, k, v = (x[:0] for x in tensors(kernel, 5, 5))
    output, lse = run(TiledBackend().load(kernel), q, k, v)
    assert output.shape == (0, 2, 5, 4)
    assert lse.shape == (0, 2, 5)


def test_views_are_as_good_as_copies() -> None:
    kernel = kernel_of(streaming(5, 20), 4, 2)
    attention = TiledBackend().load(kernel)
    q, k, v = tensors(kernel, 40, 40)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    wide = torch.stack([k, v], dim=-1)
    found = run(attention, strided[0], wide[..., 0], wide[..., 1])
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(found, run(attention, q, k, v), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_stands_at_an_invisible_key_reaches_nothing(bad: float) -> None:
    kernel = kernel_of(window(20))
    attention = TiledBackend().load(kernel)
    q, k, v = tensors(kernel, 50, 50)
    expected, _ = run(attention, q, k, v)
    k[:, :, 3], v[:, :, 5] = bad, bad
    q.requires_grad_()
    output, _ = run(attention, q, k, v)
    dense, _ = run(ReferenceBackend().load(kernel), q, k, v)
    torch.testing.assert_close(output, dense, equal_nan=True)
    torch.testing.assert_close(output[:, :, 25:], expected[:, :, 25:])
    torch.testing.assert_close(output[:, :, :3], expected[:, :, :3])
    torch.autograd.backward(output[:, :, 25:].sum())
    assert q.grad is not None
    assert q.grad[:, :, 25:].isfinite().all()
    assert (q.grad[:, :, 25:] != 0).any()


def test_numbers_that_overflow_are_still_hidden_by_the_mask() -> None:
    kernel = kernel_of(CAUSAL)
    q, k, v = tensors(kernel, 20, 20, torch.float32)
    k[:, :, -1] = 1e38
    output, _ = run(TiledBackend().load(kernel), q * 1e3, k, v)
    assert output[:, :, :-1].isfinite().all()


def test_16_bit_output_is_the_float32_one_rounded_once() -> None:
    kernel = kernel_of(CAUSAL)
    q, k, v = tensors(kernel, 40, 40, torch.bfloat16)
    output, lse = run(TiledBackend().load(kernel), q, k, v)
    wide, _ = run(TiledBackend().load(kernel), q.float(), k.float(), v.float())
    assert lse.dtype == torch.float32
    assert torch.equal(output, wide.to(torch.bfloat16))


def test_only_live_tiles_are_computed() -> None:
    kernel = kernel_of(window(32), 2, 1)
    call = chunks.Call(1, 4096, 4096, 0, (), torch.device("cpu"))
    (group,) = chunks.groups_of(kernel, call)
    pairs = sum(chunk.rows.numel() * chunk.keys.shape[1] for chunk in group.chunks)
    tiles = live_tiles(kernel.covers[0], SMALL, 0, 4096, 4096, 0, {})
    assert pairs == len(tiles.qt) * SMALL.block_q * SMALL.block_k
    assert pairs <= 4096 * (32 + 16)


def test_chunks_hold_every_live_pair_once() -> None:
    kernel = kernel_of(streaming(5, 40), 2, 1)
    call = chunks.Call(1, 70, 90, 13, (), torch.device("cpu"))
    (group,) = chunks.groups_of(kernel, call)
    seen = torch.zeros(70, 90, dtype=torch.int64)
    for chunk in group.chunks:
        for rows, keys in zip(chunk.rows, chunk.keys, strict=True):
            seen[rows[:, None], keys[None, :]] += 1
    expected = torch.zeros_like(seen)
    tiles = live_tiles(kernel.covers[0], SMALL, 0, 70, 90, 13, {})
    for qt, kt in zip(tiles.qt.tolist(), tiles.kt.tolist(), strict=True):
        first = max(qt * 16 - 13, 0)
        expected[first : qt * 16 + 3, kt * 16 : kt * 16 + 16] = 1
    assert torch.equal(seen, expected)


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    cache = chunks.ChunkCache()
    kernel = kernel_of(CAUSAL)
    calls = [
        chunks.Call(1, n, n, 0, (), torch.device("cpu"))
        for n in range(1, chunks.KEPT_CALLS + 2)
    ]
    first = cache.groups(kernel, calls[0])
    for call in calls[1:-1]:
        cache.groups(kernel, call)
    assert cache.groups(kernel, calls[0]) is first
    cache.groups(kernel, calls[-1])
    assert len(cache.kept) == chunks.KEPT_CALLS
    assert calls[0] in cache.kept
    assert calls[1] not in cache.kept


def test_the_cache_keeps_nothing_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = chunks.ChunkCache()
    kernel = kernel_of(CAUSAL)
    small, large = (chunks.Call(1, n, n, 0, (), torch.device("cpu")) for n in (16, 400))
    cache.groups(kernel, small)
    monkeypatch.setattr(chunks, "KEPT_BYTES", 10_000)
    cache.groups(kernel, small)
    assert list(cache.kept) == [small]
    cache.groups(kernel, large)
    assert not cache.kept


def test_heads_without_keys_leave_the_others_alone() -> None:
    nothing = Attention(
        "example", 2, 1, (), (HeadCase((0,), window(0)), HeadCase((1,), window(9)))
    )
    assert_agrees(plan(nothing, SMALL), 20, 20)


def test_a_schedule_that_tests_nothing_shows() -> None:
    """The ranges decide, not the mask: a mistake in them cannot hide."""
    kernel = kernel_of(CAUSAL)
    (cover,) = kernel.covers
    assert cover.ranges is not None
    untested = tuple(replace(part, residual=FULL_PATTERN) for part in cover.ranges)
    all_full = replace(cover, ranges=untested)
    q, k, v = tensors(kernel, 20, 20)
    right, _ = run(TiledBackend().load(kernel), q, k, v)
    wrong, _ = run(TiledBackend().load(replace(kernel, covers=(all_full,))), q, k, v)
    assert not torch.allclose(right, wrong)
