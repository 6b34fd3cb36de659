"""`attn(...)` and its gradients by Triton's kernels, against float64 of the definition."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import patternc
from patternc import driver
from patternc.plan.kernel import Schedule
from patternc.source import Source
from patternc.verify import SLACK
from patternc.verify_gradients import verify_gradients
from tests.backends.triton import data_programs, programs
from tests.stdlib.mask_mods import ORACLES
from tests.stdlib.test_flex import kernel_of as standard_kernel

SMALL = Schedule(block_q=32, block_k=32, warps=4, stages=2)
TEXTS = {
    **programs.PROGRAMS,
    **data_programs.PROGRAMS,
    "softmax_without": """attention softmax_without {
    heads 2
    mask causal
    weights relu2(0.5)    for h in {0}
    weights sigmoid(-1.0) otherwise
}
""",
}


@functools.cache
def load(name: str, backend: str) -> patternc.Attention:
    trace = driver.trace_source(Source(f"{name}.pat", TEXTS[name]), None, {}, SMALL)
    return patternc.Attention(trace).backend(backend)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a call: rows, keys, D and D_v; `q_offset` is the default."""

    n_q: int = 45
    n_k: int = 70
    dim: int = 16
    value_dim: int = 16
    batch: int = 1


def tensors(name: str, sizes: Sizes) -> dict[str, Tensor]:
    """Seeded normal q, k, v, the inputs, and gradients of output and LSE."""
    generator = torch.Generator().manual_seed(11)
    attention = load(name, "tiled").kernel.attention
    heads, kv = attention.heads, attention.kv_heads

    def normal(*shape: int) -> Tensor:
        return torch.randn((sizes.batch, *shape), generator=generator)

    found = {
        "q": normal(heads, sizes.n_q, sizes.dim),
        "k": normal(kv, sizes.n_k, sizes.dim),
        "v": normal(kv, sizes.n_k, sizes.value_dim),
        "d_out": normal(heads, sizes.n_q, sizes.value_dim),
        "d_lse": normal(heads, sizes.n_q),
    }
    if name in data_programs.PROGRAMS:
        offset = sizes.n_k - sizes.n_q
        found |= data_programs.inputs_of(name, sizes.n_q, sizes.n_k, offset)
    return found


def step(
    attn: Any,
    given: Mapping[str, Tensor],
    dtype: torch.dtype,
    with_lse: bool,
) -> dict[str, Tensor]:
    """One training step in a dtype: output, LSE and the gradients by name."""
    own = {
        name: x.detach().to(dtype) if x.is_floating_point() else x
        for name, x in given.items()
    }
    d_out, d_lse = own.pop("d_out"), own.pop("d_lse")
    leaves = {n: x.requires_grad_() for n, x in own.items() if x.is_floating_point()}
    if with_lse:
        output, lse = attn(**own, return_lse=True)
        results, starts = [output, lse], [d_out, d_lse.to(lse.dtype)]
    else:
        output = attn(**own)
        results, starts = [output], [d_out]
    found = torch.autograd.grad(results, [*leaves.values()], starts, allow_unused=True)
    gradients = {
        f"d_{name}": torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
    own_results = dict(zip(("output", "lse"), results, strict=False))
    return {name: x.detach() for name, x in {**own_results, **gradients}.items()}


def assert_within_budget(name: str, sizes: Sizes, with_lse: bool = False) -> None:
    """FlexAttention's rule for float32, for the output and every gradient."""
    given = tensors(name, sizes)
    mine = step(load(name, "triton"), given, torch.float32, with_lse)
    golden = step(load(name, "reference"), given, torch.float64, with_lse)
    plain = step(load(name, "reference"), given, torch.float32, with_lse)
    assert mine.keys() == golden.keys()
    for key, true in golden.items():
        assert mine[key].shape == true.shape, key
        assert mine[key].dtype == torch.float32, key
        budget = SLACK * error(plain[key], true) + 1e-7 * mean(true)
        assert error(mine[key], true) <= budget, key
        if key in ("d_q", "d_k", "d_v"):
            assert mean(true) > 1e-4, key


def error(found: Tensor, true: Tensor) -> float:
    """The mean error; infinite for what is not a number on one side alone."""
    apart = torch.where(found == true, 0.0, (found.double() - true).abs())
    return mean(apart.nan_to_num(nan=torch.inf))


def mean(x: Tensor) -> float:
    return float(x[x != -torch.inf].abs().mean())


PLAIN = Sizes()
SQUARE = Sizes(70, 70)
BATCHED = Sizes(70, 70, batch=data_programs.BATCH)
CASES = {
    "window": PLAIN,
    "duo": PLAIN,  # three query heads to a key/value head of two patterns
    "outputs": SQUARE,
    "sinks": PLAIN,
    "alibi": PLAIN,
    "documents": BATCHED,
    "phases": SQUARE,  # tiles hold positions of an order
    "clusters": BATCHED,  # orders by labels, scores, sinks and outputs at once
    "softmax_without": PLAIN,
    "blind": Sizes(100, 100),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_definition(name: str) -> None:
    assert_within_budget(name, CASES[name])


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(dim=24, value_dim=40),
        Sizes(dim=80, value_dim=80),
        Sizes(dim=7, value_dim=130),
    ],
)
def test_head_sizes(sizes: Sizes) -> None:
    assert_within_budget("duo", sizes)


@pytest.mark.parametrize("name", ["window", "sinks", "blind"])
def test_the_lse_has_a_gradient(name: str) -> None:
    assert_within_budget(name, CASES[name], with_lse=True)


@pytest.mark.parametrize("batch", [1, 2])
def test_inputs_shared_by_a_batch_and_of_its_own(batch: int) -> None:
    """A gradient has the shape that was given, with a batch axis or without."""
    sizes = Sizes(30, 30, batch=2)
    given = tensors("alibi", sizes)
    if batch == 2:
        given["slope"] = torch.stack([given["slope"], 2 * given["slope"]])
    mine = step(load("alibi", "triton"), given, torch.float32, False)
    true = step(load("alibi", "reference"), given, torch.float64, False)
    assert mine["d_slope"].shape == given["slope"].shape
    torch.testing.assert_close(
        mine["d_slope"].double(), true["d_slope"], atol=1e-5, rtol=1e-5
    )


def test_rows_without_keys_have_gradients_of_exactly_0() -> None:
    sizes = CASES["blind"]
    given = tensors("blind", sizes)
    found = step(load("blind", "triton"), given, torch.float32, True)
    assert bool((found["lse"][:, :, :30] == -torch.inf).all())
    assert bool((found["d_q"][:, :, :30] == 0).all())
    assert bool((found["d_q"][:, :, 40:90] != 0).any(-1).all())
    assert bool((found["d_k"][:, :, 80:] == 0).all())
    assert bool((found["d_v"][:, :, 80:] == 0).all())
    assert all(bool(found[f"d_{name}"].isfinite().all()) for name in "qkv")


def test_a_gradient_that_is_one_number_for_all() -> None:
    """That of `out.sum()` has strides of 0."""
    given = tensors("causal", PLAIN)
    grads = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        own = [given[name].detach().to(dtype).requires_grad_() for name in "qkv"]
        load("causal", backend)(*own).sum().backward()  # type: ignore[no-untyped-call]
        grads.append([x.grad for x in own])
    for mine, true in zip(*grads, strict=True):
        assert mine is not None and true is not None
        torch.testing.assert_close(mine.double(), true, atol=1e-5, rtol=1e-4)


def test_gradients_follow_the_tensors_of_a_model() -> None:
    """Heads last in memory, as a projection leaves them, and a leaf before that."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(1, 40, 4 * 3 * 16, generator=generator)
    grads = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaf = rows.detach().to(dtype).requires_grad_()
        q, k, v = leaf.view(1, 40, 3, 4, 16).permute(2, 0, 3, 1, 4)
        output = load("window", backend)(q, k[:, :2], v[:, :2])
        output.transpose(1, 2).square().sum().backward()  # type: ignore[no-untyped-call]
        grads.append(leaf.grad)
    assert grads[0] is not None and grads[1] is not None
    torch.testing.assert_close(grads[0].double(), grads[1], atol=1e-5, rtol=1e-4)


def test_float16_trains() -> None:
    given = tensors("window", PLAIN)
    mine = step(load("window", "triton"), given, torch.float16, False)
    true = step(load("window", "reference"), given, torch.float64, False)
    for name in ("d_q", "d_k", "d_v"):
        assert mine[name].dtype == torch.float16
        torch.testing.assert_close(
            mine[name].double(), true[name], atol=1e-2, rtol=1e-2
        )


@pytest.mark.parametrize("name", ["duo", "clusters"])
def test_the_same_bits_twice(name: str) -> None:
    given = tensors(name, CASES[name])
    runs = [step(load(name, "triton"), given, torch.float32, False) for _ in range(2)]
    assert all(torch.equal(x, runs[1][key]) for key, x in runs[0].items())


@pytest.mark.parametrize(
    "name", ["streaming", "grid", "tri_shape", "sliding_tile", "prefix_lm"]
)
def test_standard_patterns_pass_verification(name: str) -> None:
    """The others run on a GPU, in `tests/gpu`."""
    n = ORACLES[name].n
    found = verify_gradients(
        standard_kernel(name),
        ["triton"],
        dtypes=(torch.float32, torch.float16),
        sizes=((n, n),),
        batch=1,
        head_dim=16,
    )
    assert len(found) == 2 * 3
    assert [result for result in found if not result.ok] == []
