"""The planning phase by kernels on a CUDA device; else skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc.backends import planner as definition
from patternc.backends.triton import planner
from patternc.backends.triton.fused import fused_of
from patternc.backends.triton.load import TritonBackend
from patternc.store import Store
from tests.backends.triton.planning import module_of
from tests.backends.triton.test_planner import PROGRAMS, kernel_of
from tests.kernels import CAUSAL


def call_of(params: dict[str, int], n_q: int, n_k: int) -> dict[str, Any]:
    return {"scale": 0.125, "q_offset": n_k - n_q, "params": params, "inputs": {}}


def rows_of(n_q: int, n_k: int, dtype: torch.dtype, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(n_q)
    shapes = ((2, 2, n_q, dim), (2, 1, n_k, dim))
    q, k = (
        torch.randn(shape, generator=generator, device="cuda").to(dtype)
        for shape in shapes
    )
    return q, k


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PROGRAMS)
def test_tables_are_those_of_the_definition(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Ties apart: numbers that differ in their last bits may be ranked otherwise."""
    kernel = kernel_of(PROGRAMS[name])
    attention = kernel.attention
    module = TritonBackend(Store(tmp_path)).load(kernel).module
    params = {"n": 21} if attention.params else {}
    for n_q, n_k, dim in ((700, 700, 128), (300, 1111, 64), (257, 513, 200)):
        q, k = rows_of(n_q, n_k, dtype, dim)
        call = call_of(params, n_q, n_k)
        wanted = definition.plan_tables(attention, q, k, **call)
        found, again = (
            planner.plan_tables(module, fused_of(attention), attention, q, k, **call)
            for _ in range(2)
        )
        for key, table in wanted.items():
            assert torch.equal(found[key], again[key])
            differ = int((found[key] != table).sum())
            assert differ <= max(4, int(table.sum()) // 200), (key, n_q)


@pytest.mark.parametrize("shape", [(5, 7), (64, 1024), (3, 9000), (2, 300_001)])
def test_choices_are_those_of_a_sort(shape: tuple[int, int], tmp_path: Path) -> None:
    module = module_of(CAUSAL, tmp_path)
    generator = torch.Generator("cuda").manual_seed(0)
    values = torch.randn(shape, generator=generator, device="cuda")
    values = (values * 20).round() / 20  # ties
    classes = torch.ones(1, shape[1], dtype=torch.int8, device="cuda")
    classes[:, ::7], classes[:, 5::11] = module.ALWAYS, module.ABSENT
    amount = max(int((classes == module.ALWAYS).sum()), shape[1] // 5)
    ranked = torch.where(classes == module.ALWAYS, torch.inf, values)
    ranked = torch.where(classes == module.ABSENT, -torch.inf, ranked)
    order = torch.sort(ranked, stable=True, dim=1, descending=True).indices
    order = order[:, :amount]
    wanted = torch.zeros(shape, dtype=torch.bool, device="cuda").scatter(1, order, True)
    found = module.choose_top(values, classes, amount)
    assert torch.equal(found, wanted)
    places, counts = module.list_chosen(found, amount)
    assert counts.tolist() == [amount] * shape[0]
    assert torch.equal(places.long(), found.nonzero()[:, 1].view(shape[0], amount))
    mass = torch.softmax(values, 1)
    share = module.choose_top_p(mass, classes, 0.6, True)
    total = mass[:, classes[0] > 0].double().sum(1)
    least = torch.where(share & (classes == module.OPEN), mass, torch.inf).amin(1)
    kept = torch.where(share, mass, 0).double().sum(1)
    assert bool((kept >= 0.6 * total - 1e-9).all())
    is_needed = kept - least < 0.6 * total + 1e-9
    assert bool((is_needed | ~(share & (classes == module.OPEN)).any(1)).all())


@pytest.mark.parametrize("name", ["vertical_slash", "antidiagonals", "pooled"])
def test_a_plan_is_captured_in_a_graph(name: str, tmp_path: Path) -> None:
    kernel = kernel_of(PROGRAMS[name])
    attention = kernel.attention
    loaded = TritonBackend(Store(tmp_path)).load(kernel)
    q, k = rows_of(512, 512, torch.bfloat16, 64)
    call = call_of({"n": 21} if attention.params else {}, 512, 512)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        loaded.plan_tables(q, k, **call)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = loaded.plan_tables(q, k, **call)
    q.copy_(torch.randn_like(q))
    k.copy_(torch.randn_like(k))
    graph.replay()
    wanted = loaded.plan_tables(q, k, **call)
    for key, table in wanted.items():
        assert torch.equal(held[key], table), key


def test_heads_that_lie_far_apart(tmp_path: Path) -> None:
    """More than 2**31 elements between two heads, as at a million tokens."""
    module = module_of(CAUSAL, tmp_path)
    n, dim, apart = 192, 64, 2**31 + 64
    room = torch.empty(apart + n * dim, device="cuda", dtype=torch.float16)
    far = room.as_strided((1, 2, n, dim), (apart, apart, dim, 1))
    q, k = rows_of(n, n, torch.float16, dim)
    far.copy_(q[:1])
    found, wanted = (
        module.Probe(module.MAP_0, x, k[:1], 0.125, 0, 100, n, (), True)
        for x in (far, far.contiguous())
    )
    torch.testing.assert_close(found.by_column("sum", 1), wanted.by_column("sum", 1))
    ranges = ("sum", -n, 2 * n, False)
    torch.testing.assert_close(found.by_diagonal(*ranges), wanted.by_diagonal(*ranges))
    blocks = [probe.by_block("sum", 64, 64) for probe in (found, wanted)]
    torch.testing.assert_close(*blocks)
    pooled = [module.pool(x, "mean", 64, 0) for x in (far, far.contiguous())]
    torch.testing.assert_close(*pooled)
