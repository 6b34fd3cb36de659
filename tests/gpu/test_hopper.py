"""The kernel for Hopper on such a GPU; skipped where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import patternc
from patternc import driver
from patternc.backends.hopper.load import HopperBackend
from patternc.backends.hopper.route import possible_route
from patternc.backends.triton.load import (
    TritonAttention,
    TritonBackend,
    load_module,
)
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.verify import verify
from tests.backends.hopper.programs import (
    LISTED,
    NAMES,
    PROGRAMS,
    kernel_of,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9,
    reason="no Hopper GPU here",
)

BRIEF = (torch.bfloat16, torch.float16)
SIZES = ((128, 128), (200, 333), (333, 200), (1, 1000), (1024, 1024), (1000, 1500))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Small calls take the kernel for Hopper too, on few programs; launches are counted."""
    launches: list[str] = []

    def load(self: HopperBackend, kernel: Kernel) -> TritonAttention:
        loaded = load_module(kernel, possible_route(kernel), self.store)
        module = loaded.module
        if not hasattr(module, "hopper_kernel"):
            return loaded
        launch = module.hopper_launch

        def counted(*given: object) -> object:
            launches.append(module.NAME)
            return launch(*given)

        monkeypatch.setattr(module, "fills_device", lambda *given: True)
        monkeypatch.setattr(module, "has_long_rows", lambda *given: True)
        # Few programs, so that each computes several tiles of a small call.
        monkeypatch.setattr(module, "multiprocessors", lambda device: 5)
        monkeypatch.setattr(module, "splits_of", lambda *given: 1)
        monkeypatch.setattr(module, "hopper_launch", counted)
        return loaded

    monkeypatch.setattr(HopperBackend, "load", load)
    yield launches


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", NAMES)
def test_programs(name: str, head_dim: int, taken: list[str]) -> None:
    """Every dtype and size is within the budget that float64 gives."""
    kernel = kernel_of(name)
    results = verify(
        kernel, ["hopper"], "cuda", dtypes=BRIEF, sizes=SIZES, head_dim=head_dim
    )
    assert [result for result in results if not result.ok] == []
    assert taken


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", [*LISTED, "table", "wide"])
def test_programs_with_inputs(name: str, head_dim: int, taken: list[str]) -> None:
    results = verify(
        kernel_of(name),
        ["hopper"],
        "cuda",
        dtypes=BRIEF,
        sizes=SIZES,
        head_dim=head_dim,
        batch=2,
    )
    assert [result for result in results if not result.ok] == []
    assert taken


def test_listed_tiles_that_values_spoil(taken: list[str]) -> None:
    kernel = kernel_of("documents")
    modules = [
        backend.load(kernel).module for backend in (HopperBackend(), TritonBackend())
    ]
    q, k, v = torch.randn(3, 1, 2, 700, 128, device="cuda", dtype=torch.bfloat16)
    doc = (torch.arange(700, device="cuda") // 230).int()
    v[0, 0, 350] = math.nan
    k[0, 1, 600] = math.inf
    found, wanted = (module.forward(q, k, v, doc=doc) for module in modules)
    assert taken and bool(wanted.isnan().any()) and not bool(wanted.isnan().all())
    torch.testing.assert_close(found, wanted, equal_nan=True, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("block_q", [32, 64, 128])
def test_what_is_not_finite_stays_with_those_who_see_it(
    block_q: int, taken: list[str]
) -> None:
    kernel = kernel_of("window", Schedule(block_q, 64))
    modules = [
        backend.load(kernel).module for backend in (HopperBackend(), TritonBackend())
    ]
    q = torch.randn(1, 4, 700, 128, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn(2, 1, 2, 700, 128, device="cuda", dtype=torch.bfloat16)
    v[0, 0, 350] = math.nan
    k[0, 1, 600] = math.inf
    v[0, 1, 17, 5] = -math.inf
    (found, lse), (wanted, wanted_lse) = (
        module.forward(q, k, v, return_lse=True) for module in modules
    )
    assert taken == [modules[0].NAME]
    assert bool(wanted.isnan().any()) and not bool(wanted.isnan().all())
    torch.testing.assert_close(found, wanted, equal_nan=True, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(lse, wanted_lse, equal_nan=True, atol=1e-3, rtol=1e-3)


def _strided(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("q_offset", [-70, 0, 37, 800])
def test_offsets_strides_and_batches(q_offset: int, taken: list[str]) -> None:
    kernel = kernel_of("duo")
    modules = [
        backend.load(kernel).module for backend in (HopperBackend(), TritonBackend())
    ]
    q = torch.randn(3, 6, 300, 64, device="cuda", dtype=torch.float16)
    k = torch.randn(3, 3, 1000, 64, device="cuda", dtype=torch.float16)
    v = torch.randn(3, 3, 1000, 128, device="cuda", dtype=torch.float16)
    given = [_strided(tensor) for tensor in (q, k, v)]
    (found, lse), (wanted, wanted_lse) = (
        module.forward(*given, q_offset=q_offset, return_lse=True) for module in modules
    )
    assert taken
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(lse, wanted_lse, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["causal", "duo", "everything", "window"])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_sequences(name: str, form: str, taken: list[str]) -> None:
    kernel = kernel_of(name)
    modules = [
        backend.load(kernel).module for backend in (HopperBackend(), TritonBackend())
    ]
    heads, kv = kernel.attention.heads, kernel.attention.kv_heads
    batch, n = (4, 700) if form == "padded" else (1, 1300)
    q = torch.randn(batch, heads, n, 128, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn(2, batch, kv, n, 128, device="cuda", dtype=torch.bfloat16)
    v[0, 0, 600] = math.nan
    given: dict[str, Tensor | int] = {
        "lengths": torch.tensor([700, 0, 130, 513], device="cuda", dtype=torch.int32)
    }
    if form == "packed":
        ends = [0, 1, 1, 130, 643, 1280]  # and some rows of no sequence
        starts = torch.tensor(ends, device="cuda", dtype=torch.int32)
        given = {"cu_seqlens": starts, "max_seqlen": 637}
    (found, lse), (wanted, wanted_lse) = (
        module.forward(q, k, v, return_lse=True, **given) for module in modules
    )
    assert taken and bool(wanted.isnan().any()) and not bool(wanted.isnan().all())
    torch.testing.assert_close(found, wanted, equal_nan=True, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(lse, wanted_lse, equal_nan=True, atol=1e-3, rtol=1e-3)


def _launches(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    launch = module.hopper_launch

    def counted(*given: object) -> object:
        found.append(1)
        return launch(*given)

    monkeypatch.setattr(module, "hopper_launch", counted)
    return found


def test_which_calls_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "causal.pat"
    path.write_text(PROGRAMS["causal"])
    attn = patternc.load(path)
    module = HopperBackend().load(attn.kernel).module
    found = _launches(module, monkeypatch)

    def launches(n: int, dim: int, dtype: torch.dtype, n_q: int | None = None) -> int:
        q = torch.randn(1, 4, n_q or n, dim, device="cuda", dtype=dtype)
        k, v = torch.randn(2, 1, 2, n, dim, device="cuda", dtype=dtype)
        found.clear()
        module.forward(q, k, v)
        return len(found)

    assert launches(8192, 128, torch.bfloat16) == 1
    assert launches(8192, 64, torch.float16) == 1
    assert launches(4608, 64, torch.float16) == 1
    assert launches(3000, 64, torch.float16, n_q=4608) == 0
    assert launches(8192, 96, torch.float16) == 0
    assert launches(8192, 128, torch.float32) == 0
    assert launches(8192, 128, torch.bfloat16, n_q=1) == 0
    assert launches(512, 128, torch.bfloat16) == 0  # too few tiles


def _fresh(name: str) -> ModuleType:
    """A module that was not called before, causal, of 4 heads."""
    text = f"attention {name} {{\n    heads 4\n    mask causal\n}}\n"
    kernel = driver.compile_source(Source(f"{name}.pat", text))
    return HopperBackend().load(kernel).module


def _drawn(n: int) -> list[Tensor]:
    draw = torch.Generator("cuda").manual_seed(4)
    shape = (1, 4, n, 128)
    return [
        torch.randn(shape, generator=draw, device="cuda").bfloat16() for _ in range(3)
    ]


def test_a_graph_after_one_call(taken: list[str]) -> None:
    """The second launch is compiled, loaded and captured by then."""
    module, (q, k, v) = _fresh("graph_after_one"), _drawn(1000)
    first = module.forward(q, k, v)
    assert len(module.LATER) == 1
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = module.forward(q, k, v)
    assert len(module.LATER) == 0
    graph.replay()
    assert torch.equal(held, first)
    v[:, :, 700] = math.nan
    graph.replay()
    assert torch.equal(held[:, :, :640], first[:, :, :640])
    assert held[:, :, :700].isfinite().all()
    assert held[:, :, 700:].isnan().all()
    assert len(taken) == 2


def test_a_first_call_with_nan(taken: list[str]) -> None:
    """It waits for the second launch: NaN where it is due, and nowhere else."""
    module, (q, k, v) = _fresh("first_with_nan"), _drawn(1000)
    wanted = _fresh("first_without_nan").forward(q, k, v)
    v[:, :, 700] = math.nan
    found = module.forward(q, k, v)
    assert len(module.LATER) == 0
    assert torch.equal(found[:, :, :640], wanted[:, :, :640])
    assert found[:, :, :700].isfinite().all()
    assert found[:, :, 700:].isnan().all()
    again = module.forward(q, k, v)
    assert torch.equal(again.nan_to_num(7.0), found.nan_to_num(7.0))
    assert len(taken) == 3
