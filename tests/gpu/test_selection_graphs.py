"""Plan and attention of choices per token in one CUDA graph, replayed; else skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import patternc
from patternc import stdlib_patterns
from patternc.driver import trace_source
from patternc.source import Source

VIDEO = {"frames": 6, "height": 12, "width": 16, "tile_f": 2, "tile_y": 4, "tile_x": 8}
PROGRAMS: dict[str, tuple[str, dict[str, Any], int]] = {
    "moba": ("moba", {"chunk": 64, "take": 3, "count": 8, "kv_count": 2}, 1000),
    "vmoba": ("vmoba", {**VIDEO, "count": 4, "kv_count": 4}, 1152),
    "vmoba_by_query": ("vmoba", {**VIDEO, "count": 4, "kv_count": 4}, 1152),
    "nsa_selected": ("nsa_selected", {"take": 6, "count": 8, "kv_count": 2}, 1000),
}


def loaded(name: str) -> patternc.Attention:
    file, values, _ = PROGRAMS[name]
    source = Source(f"{file}.pat", stdlib_patterns.text(file))
    return patternc.Attention(trace_source(source, name, values))


def drawn(name: str, seed: int) -> list[Tensor]:
    _, values, n = PROGRAMS[name]
    generator = torch.Generator("cuda").manual_seed(seed)
    heads = (values["count"], values["kv_count"], values["kv_count"])
    return [
        torch.randn(2, own, n, 64, generator=generator, device="cuda").bfloat16()
        for own in heads
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_captured_call_chooses_again(name: str) -> None:
    """Forward and backward, with new tensors in the same memory: the same bits."""
    attention = loaded(name)
    tensors = [x.requires_grad_() for x in drawn(name, 0)]
    d_out = torch.randn_like(tensors[0])

    def step() -> tuple[Tensor, ...]:
        out = attention(*tensors)
        return out.detach(), *torch.autograd.grad(out, tensors, d_out)

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        before = step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = step()
    with torch.no_grad():
        for tensor, other in zip(tensors, drawn(name, 1), strict=True):
            tensor.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    found = [x.clone() for x in held]
    wanted = step()
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))
    assert not torch.equal(found[0], before[0])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_captured_plan_is_that_of_a_dense_mask(name: str) -> None:
    """What a graph attends to is what its own plan says, of the new tensors."""
    attention = loaded(name)
    q, k, v = drawn(name, 2)
    attention(q, k, v, plan=attention.plan(q, k))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan = attention.plan(q, k)
        held = attention(q, k, v, plan=plan)
    for tensor, other in zip((q, k, v), drawn(name, 3), strict=True):
        tensor.copy_(other)
    graph.replay()
    seen = attention.mask(q.shape[2], k.shape[2], plan=attention.plan(q, k))
    wanted = torch.nn.functional.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), seen.cuda(), enable_gqa=True
    )
    torch.testing.assert_close(held.float(), wanted, rtol=2e-2, atol=2e-2)


# The mode says of itself that it is a prototype.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_call_asks_the_device_for_nothing() -> None:
    attention = loaded("moba")
    tensors = [x.requires_grad_() for x in drawn("moba", 0)]
    torch.autograd.grad(attention(*tensors).sum(), tensors)
    try:
        torch.cuda.set_sync_debug_mode("error")
        torch.autograd.grad(attention(*tensors).sum(), tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")
