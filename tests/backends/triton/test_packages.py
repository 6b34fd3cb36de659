"""Packages of programs that read inputs or choose keys: the JIT's results to the bit."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from patternc.backends.planner import plan_tables
from patternc.backends.triton.build import Wanted
from patternc.backends.triton.load import TritonBackend
from patternc.ops.program import Program, Site
from patternc.runtime.attention import PackagedAttention
from patternc.store import Store
from tests.backends.triton.test_waits import no_waiting
from tests.runtime.packages import DATA, StubDriver, kernel_of, quick_package

WANTED = Wanted(("sm_90",), ("fp32",), (16,), backward=True)
SMALL = {"ROW_TILE": 16, "KEY_TILE": 32, "DIAGONAL_STEPS": 2, "PLANNED_AT_ONCE": 900}
OF_LAYOUTS: dict[str, tuple[int, int, int | None]] = {"ordered_pairs": (65, 65, None)}
CASES = [(name, OF_LAYOUTS.get(name, (5, 66, None))) for name in DATA]
CASES.append(("vertical_slash", (7, 64, 3)))
PLANNED = ["vertical_slash", "pooled", "shares", "largest"]
PLANNED += ["chosen_sinks", "small_blocks", "per_token", "groups"]


@lru_cache
def generated(name: str, folder: Path) -> ModuleType:
    """The module of a program, which Triton interprets."""
    module = TritonBackend(Store(folder)).load(kernel_of(name)).module
    vars(module).update({x: y for x, y in SMALL.items() if hasattr(module, x)})
    return module


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For generated modules."""
    return tmp_path_factory.mktemp("data")


def packaged(name: str, folder: Path) -> PackagedAttention:
    """The package's own launcher, with the interpreted kernels of the module."""
    module = generated(name, folder)
    attn = PackagedAttention(quick_package(name, WANTED), StubDriver())
    host: Any = attn._ready()
    for word, value in vars(module).items():
        if word.endswith("_kernel") and word != "list_kernel":  # no plan lists
            assert hasattr(host, word), word
            setattr(host, word, value)
    vars(host).update(SMALL, INTERPRETED=True, TensorDescriptor=TensorDescriptor)
    if hasattr(module, "MAPS"):
        assert len(host.MAPS) == len(module.MAPS)
        host.MAPS, host.shared_memory = module.MAPS, module.shared_memory
    return attn


def tensors(name: str, n_q: int, n_k: int, seed: int = 0) -> list[Tensor]:
    """q, k, v and the gradient of the output."""
    own, generator = kernel_of(name).attention, torch.Generator().manual_seed(seed)
    heads = (own.heads, own.kv_heads, own.kv_heads, own.heads)
    rows = (n_q, n_k, n_k, n_q)
    return [
        torch.randn(1, h, n, 16, generator=generator)
        for h, n in zip(heads, rows, strict=True)
    ]


def inputs_of(name: str, n_k: int, n_q: int, offset: int) -> dict[str, Tensor]:
    """Inputs that callers give, seeded."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(7)
    sizes = {"b": 1, "h": kernel_of(name).attention.heads, "k": n_k, "q": offset + n_q}
    for item in quick_package(name, WANTED).manifest.facts.inputs:
        if not item.is_given:
            continue
        shape = [
            max(0, (sizes[x.kind] - 1 - x.shift) // x.divisor + 1)
            if x.kind in sizes
            else x.size
            for x in item.axes
        ]
        number = torch.randn(shape, generator=generator)
        kinds = {"float": number, "int": (number * 2).to(torch.int32)}
        found[item.name] = kinds.get(item.element, number > 0.8)
    return found


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=str)
def test_forward_and_backward(
    name: str, sizes: tuple[int, int, int | None], folder: Path
) -> None:
    n_q, n_k, q_offset = sizes
    offset = n_k - n_q if q_offset is None else q_offset
    module, attn = generated(name, folder), packaged(name, folder)
    q, k, v, d = tensors(name, n_q, n_k)
    given: dict[str, Any] = inputs_of(name, n_k, n_q, offset)
    wanted = tuple(x for x in given if given[x].is_floating_point())
    call: dict[str, Any] = {"q_offset": q_offset, "scale": 0.3}
    own = dict(given)
    if name in PLANNED:
        own = module.plan(q, k, **call)
        plan = attn.plan(q, k, **call)
        assert own.keys() == plan.found.keys()
        for key, value in own.items():
            same = plan.found[key]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(same)), key
            is_empty = isinstance(value, Tensor) and not value.any()
            assert not is_empty or q_offset == 3  # before all rows of the probe
    out, lse, trained, expected = by_the_jit(name, folder, (q, k, v, d), offset, own)
    once = attn(q, k, v, return_lse=True, **call, **given)
    assert torch.equal(once[0], out) and torch.equal(once[1], lse)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    named: dict[str, Any] = {
        x: y.requires_grad_() if x in wanted else y for x, y in given.items()
    }
    mine, its_lse = attn(q, k, v, return_lse=True, **call, **named)
    assert torch.equal(mine, trained[0]) and torch.equal(its_lse, trained[1])
    parts = [q, k, v, *(named[x] for x in wanted)]
    found = torch.autograd.grad((mine, its_lse), parts, (d, lse))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other.reshape(one.shape))


@pytest.mark.parametrize("name", ["per_token", "groups"])
def test_each_row_ranks_blocks_as_defined(name: str, folder: Path) -> None:
    attn = packaged(name, folder)
    q, k, _, _ = tensors(name, 7, 60)
    found = attn.plan(q, k, scale=0.25).tables["chosen"]
    attention = kernel_of(name).attention
    wanted = plan_tables(attention, q, k, scale=0.25, q_offset=53, params={}, inputs={})
    assert torch.equal(found, wanted["chosen"]) and found.any() and not found.all()


def test_lists_of_what_was_chosen_are_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attn = packaged("small_blocks", folder)
    q, k, v, d = tensors("small_blocks", 5, 66)
    plan = attn.plan(q, k)
    for x in (q, k, v):
        x.requires_grad_()
    with no_waiting(monkeypatch):
        out = attn(q, k, v, plan=plan)
        found = torch.autograd.grad(out, (q, k, v), d)
    assert all(x.any() for x in found)


def by_the_jit(
    name: str,
    folder: Path,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    offset: int,
    given: dict[str, Any],
) -> tuple[Tensor, Tensor, tuple[Any, ...], list[Tensor]]:
    """Output and LSE, those of a training step, and gradients (the LSE's is itself)."""
    q, k, v, d = tensors
    loaded = TritonBackend(Store(folder)).load(kernel_of(name))
    program, own = Program(name, kernel_of(name), loaded), kernel_of(name).attention
    params: dict[str, Any] = {x.name: x.default for x in own.params} | given
    values = tuple(params[x.name] for x in own.params)
    inputs = [given[item.name] for item in own.inputs]
    floats = [at for at, x in enumerate(inputs) if x.is_floating_point()]
    site = Site(values, offset, 0.3)
    with torch.no_grad():
        out, lse = program.run(q, k, v, inputs, site, True)
        *both, core, core_lse = program.run_for_gradients(q, k, v, inputs, site)
        assert lse is not None
        kept: Any = (core, core_lse) if program.keeps_core else both
        tensors_of = (q, k, v, inputs, kept, d, lse)
        return out, lse, tuple(both), program.gradients(*tensors_of, site, floats)
