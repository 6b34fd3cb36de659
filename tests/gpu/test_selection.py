"""The planner in PyTorch on a GPU: equal to the CPU's, without waiting, in a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import patternc
from patternc import driver
from patternc.backends.planner import plan_tables
from patternc.source import Source

PROGRAM = """attention chooses {
    heads 8 kv 2
    let probe = softmax(scores where causal for q >= N - 64)
    let columns = top(100, sum(probe by k), always k < 30)
    let slashes = top_p(0.9, sum(probe by q - k), min 50)
    let coarse = softmax(mean(Q by q // 64) @ mean(K by k // 64) * scale where (causal)[q // 64, k // 64])
    let blocks = top_p(0.5, coarse per q // 64 over g, crossing drop, min 1)
    let wide = entropy(sum(probe by k // 64)) > 2.5
    mask causal & (k in columns | q - k in slashes if wide else (q // 64, k // 64) in blocks | q == k)
}
"""


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 8, 1000, 64, generator=generator)
    k = torch.randn(2, 2, 1000, 64, generator=generator)
    return q.to("cuda", dtype), k.to("cuda", dtype)


def planned(q: Tensor, k: Tensor) -> dict[str, Tensor]:
    kernel = driver.compile_source(Source("chooses.pat", PROGRAM))
    told = {"scale": 0.125, "q_offset": 0}
    return plan_tables(kernel.attention, q, k, params={}, inputs={}, **told)  # type: ignore[arg-type]


def test_a_plan_is_that_of_the_cpu() -> None:
    q, k = drawn(torch.float64)
    for name, table in planned(q, k).items():
        assert torch.equal(table.cpu(), planned(q.cpu(), k.cpu())[name]), name


def test_a_plan_is_the_same_in_every_run() -> None:
    q, k = drawn(torch.bfloat16)
    first = planned(q, k)
    for _ in range(3):
        assert all(torch.equal(x, first[name]) for name, x in planned(q, k).items())


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_plan_is_captured_and_waits_for_nothing() -> None:
    q, k = drawn(torch.float32)
    wanted = planned(q, k)
    torch.cuda.set_sync_debug_mode("error")
    try:
        planned(q, k)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = planned(q, k)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    others = drawn(torch.float32)
    q.copy_(others[0].flip(2))
    graph.replay()
    again = planned(q, k)
    assert all(torch.equal(x, again[name]) for name, x in found.items())
    assert not all(torch.equal(x, wanted[name]) for name, x in found.items())


def test_a_call_equals_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "chooses.pat"
    path.write_text(PROGRAM)
    attn = patternc.load(path)
    q, k = drawn(torch.float32)
    plan = attn.plan(q, k)
    wanted = attn.backend("reference")(q, k, k, plan=plan)
    torch.testing.assert_close(attn(q, k, k, plan=plan), wanted, atol=2e-3, rtol=2e-3)
