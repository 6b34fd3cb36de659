"""NaN and infinities reach the gradients of what sees them, and no others."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import patternc
from patternc import driver
from patternc.backends.reference import mask_tensor
from patternc.plan.kernel import Schedule
from patternc.source import Source
from tests.backends.triton import data_programs, programs

# The interpreter computes with numpy, which warns of what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
]

SMALL = Schedule(block_q=32, block_k=32, warps=4, stages=2)
N_Q, N_K, OFFSET = 40, 64, 10
NAN, INF = torch.nan, torch.inf
TEXTS = {**programs.PROGRAMS, **data_programs.PROGRAMS}

SPOILED = {
    "a hidden value": ("v", 55, NAN),  # beyond the last query
    "a hidden key": ("k", 55, NAN),
    "a value": ("v", 40, NAN),
    "an infinite value": ("v", 33, -INF),
    "a key": ("k", 45, NAN),
    "an infinite key": ("k", 45, INF),
    "a query": ("q", 17, NAN),
    "an infinite query": ("q", 17, INF),
    "a gradient": ("d_out", 21, NAN),
    "an infinite gradient": ("d_out", 39, INF),
}
BACKENDS = ("reference", "tiled", "triton")


@functools.cache
def load(name: str, backend: str) -> patternc.Attention:
    trace = driver.trace_source(Source(f"{name}.pat", TEXTS[name]), None, {}, SMALL)
    return patternc.Attention(trace).backend(backend)


def tensors(name: str, n_q: int, n_k: int) -> dict[str, Tensor]:
    """Seeded normal q, k, v and gradient of the output, D = 16 and D_v = 24."""
    generator = torch.Generator().manual_seed(5)
    attention = load(name, "reference").kernel.attention
    heads, kv = attention.heads, attention.kv_heads
    shapes = {"q": (heads, n_q, 16), "k": (kv, n_k, 16), "v": (kv, n_k, 24)}
    shapes["d_out"] = (heads, n_q, 24)
    return {
        argument: torch.randn(1, *shape, generator=generator)
        for argument, shape in shapes.items()
    }


def gradients(
    attn: Any, given: dict[str, Tensor], q_offset: int, **inputs: Tensor
) -> dict[str, Tensor]:
    """Those of q, k and v."""
    q, k, v = (given[name].clone().requires_grad_() for name in "qkv")
    output = attn(q, k, v, q_offset=q_offset, **inputs)
    found = torch.autograd.grad(output, (q, k, v), given["d_out"])
    return dict(zip("qkv", found, strict=True))


def reached(
    argument: str, place: int, visible: Tensor, share: int
) -> tuple[Tensor, Tensor]:
    """The rows [H, n_q] and keys [KV, n_k] that something at a place can come to.

    It stands at the last head, or at the last key/value head and those that share it.
    """
    rows = torch.zeros(visible.shape[:2], dtype=torch.bool)
    if argument in ("q", "d_out"):
        rows[-1, place] = True
    else:
        rows[-share:] = visible[-share:, :, place]
    keys = (visible & rows.unsqueeze(-1)).any(1)
    return rows, keys.view(-1, share, keys.shape[1]).any(1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["window", "mixed"])
def test_only_what_sees_it_is_reached(name: str, backend: str) -> None:
    attention = load(name, backend).kernel.attention
    params = {item.name: item.default or 0 for item in attention.params}
    visible = mask_tensor(attention, N_Q, N_K, OFFSET, params)
    own = tensors(name, N_Q, N_K)
    clean = gradients(load(name, "tiled"), own, OFFSET)
    for what, (argument, place, value) in SPOILED.items():
        given = {key: x.clone() for key, x in own.items()}
        given[argument][0, -1, place, 3] = value
        found = gradients(load(name, backend), given, OFFSET)
        rows, keys = reached(argument, place, visible, attention.group_size)
        for key, mask in (("q", rows), ("k", keys), ("v", keys)):
            mine, wanted = found[key][0][~mask], clean[key][0][~mask]
            assert bool(mine.isfinite().all()), (what, key)
            torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-4)
        if bool(rows.any()):  # what is seen does not vanish
            every = torch.cat([x.flatten() for x in found.values()])
            assert not bool(every.isfinite().all()), what


@pytest.mark.parametrize("name", ["weights", "alibi", "clusters", "phases"])
def test_programs_with_data_agree(name: str) -> None:
    """Weights without a sum, scores and orders: not finite where Triton's are."""
    own = tensors(name, 70, 70)
    batch = data_programs.BATCH if name == "clusters" else 1
    own = {key: x.repeat(batch, 1, 1, 1) for key, x in own.items()}
    own["v"][0, 0, 37, 2], own["k"][0, -1, 60, 4] = NAN, NAN
    own["d_out"][0, 0, 11, 1] = NAN
    inputs = data_programs.inputs_of(name, 70, 70, 0)
    found = gradients(load(name, "triton"), own, 0, **inputs)
    assert bool(found["q"].isfinite().any())
    for backend in ("reference", "tiled"):
        wanted = gradients(load(name, backend), own, 0, **inputs)
        for key, mine in found.items():
            assert not bool(mine.isfinite().all())
            same = mine.isfinite() == wanted[key].isfinite()
            assert bool(same.all()), (backend, key)
            torch.testing.assert_close(
                mine, wanted[key], atol=2e-4, rtol=1e-4, equal_nan=True
            )


@pytest.mark.parametrize("kernel", ["query_gradient_kernel", "key_gradient_kernel"])
def test_without_the_second_launch_something_hidden_comes_in(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above can fail."""
    own = tensors("window", N_Q, N_K)
    is_query = kernel.startswith("query")
    own["k" if is_query else "q"][0, -1, 17, 3] = NAN
    attn = load("window", "triton")
    module = attn._load("triton").loaded.module  # type: ignore[attr-defined]
    key = "q" if is_query else "k"
    count = {True: int(gradients(attn, own, OFFSET)[key].isnan().sum())}
    start = module.start

    def once(which: Any, *arguments: Any) -> None:
        if which.__name__ != kernel or arguments[-1][-1] != "exact":
            start(which, *arguments)

    monkeypatch.setattr(module, "start", once)
    count[False] = int(gradients(attn, own, OFFSET)[key].isnan().sum())
    assert 0 < count[True] < count[False]
