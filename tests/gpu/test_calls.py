"""What a call is on a CUDA device: graphs, launches, memory, huge tensors; else skipped.

In: compiled programs. Out: nothing. Not its job: numbers (`test_triton_forward`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import patternc

WINDOW = (
    "attention near(w: runtime = 16) {\n    heads 2\n    mask causal & window(w)\n}\n"
)


@pytest.fixture
def near(tmp_path: Path) -> patternc.Attention:
    file = tmp_path / "near.pat"
    file.write_text(WINDOW)
    return patternc.load(file)


def tensors(n: int, dim: int = 64, requires_grad: bool = False) -> list[Tensor]:
    return [
        torch.randn(
            1,
            2,
            n,
            dim,
            device="cuda",
            dtype=torch.bfloat16,
            requires_grad=requires_grad,
        )
        for _ in range(3)
    ]


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")
def test_forward_and_backward_in_a_graph(near: patternc.Attention) -> None:
    q, k, v = tensors(500, requires_grad=True)

    def step() -> tuple[Tensor, ...]:
        output = near(q, k, v)
        return (output, *torch.autograd.grad(output, (q, k, v), output.detach()))

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a graph is captured after a first run
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for tensor in (q, k, v):
            tensor.copy_(torch.randn_like(tensor))
    graph.replay()
    for mine, wanted in zip(captured, step(), strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")
def test_nothing_is_launched_before_the_kernel(near: patternc.Attention) -> None:
    """A closed form needs no metadata: the device runs the kernel, and what follows."""
    q, k, v = tensors(1 << 16)
    near(q, k, v)
    before = torch.cuda.memory_allocated()
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        output = near(q, k, v)
        torch.cuda.synchronize()
    names = [item.key for item in watched.key_averages() if item.device_time_total > 0]
    assert names == ["forward_kernel"]
    tiles = 2 * (1 << 16) // 64
    held = torch.cuda.memory_allocated() - before
    assert held <= output.nbytes + 4096 + tiles


def test_more_elements_than_32_bits_count(near: patternc.Attention) -> None:
    """2**31 is passed inside the second head; its last rows are right."""
    n = (1 << 24) + 64
    q, k, v = tensors(n)
    assert q.numel() > 2**31
    with torch.no_grad():
        output = near(q, k, v, w=16)
    for head, row in ((0, 0), (0, n - 1), (1, n // 2), (1, n - 1)):
        first = max(0, row - 15)
        keys, values = k[0, head, first : row + 1], v[0, head, first : row + 1]
        logits = keys.double() @ q[0, head, row].double() / 8
        wanted = torch.softmax(logits, 0) @ values.double()
        torch.testing.assert_close(
            output[0, head, row].double(), wanted, atol=2e-2, rtol=2e-2
        )


def test_one_kernel_for_all_lengths(near: patternc.Attention) -> None:
    """Sizes, offsets and run-time parameters vary; the compiled kernels stay two."""
    q, k, v = tensors(640)
    near(q, k, v)
    module = near._load("triton").loaded.module  # type: ignore[attr-defined]
    counts = []
    for n_q, n_k, w in ((640, 640, 16), (65, 17, 3), (163, 640, 99), (128, 300, 1000)):
        near(q[:, :, :n_q], k[:, :, :n_k], v[:, :, :n_k], w=w)
        caches = module.forward_kernel.device_caches.values()
        counts.append(sum(len(cache[0]) for cache in caches))
    assert counts == [2, 2, 2, 2]  # the kernel and the one of spoiled tiles
