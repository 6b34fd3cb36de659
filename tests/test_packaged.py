"""A package behind the operators; `tests/test_deploy.py` runs an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import patternc
from patternc import driver
from patternc.backends.triton.build import Wanted
from patternc.ops import program
from patternc.ops.operators import attention as operator
from patternc.ops.program import Program, program_name
from patternc.packaged import PackagedProgram, attention_of, load
from patternc.runtime.attention import PackagedAttention
from patternc.source import Source
from tests.runtime.packages import PROGRAMS, StubDriver, quick_bytes, quick_package

BUILT = Wanted(("sm_90",), ("fp16",), (64,), backward=True)


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have loaded would stay."""
    monkeypatch.setattr(program, "_PROGRAMS", {})


def packaged(
    name: str, wanted: Wanted = BUILT
) -> tuple[patternc.Attention, StubDriver]:
    """An attention whose driver notes launches on the CPU."""
    stub = StubDriver()
    own = PackagedAttention(quick_package(name, wanted), stub)
    own._ready().INTERPRETED = True  # tensors of the CPU, which nothing reads
    return attention_of(own), stub


def test_the_name_is_that_of_the_program() -> None:
    attn, _ = packaged("duo")
    trace = driver.trace_source(Source("elsewhere.pat", PROGRAMS["duo"]))
    assert attn.program() == program_name(trace.kernel, "triton")


def test_the_operators_launch_its_kernels() -> None:
    attn, stub = packaged("causal")
    q = torch.zeros(1, 4, 70, 64, dtype=torch.float16, requires_grad=True)
    k = torch.zeros(1, 2, 70, 64, dtype=torch.float16)
    told: Any = (attn.program(), [], 0, 0.125)
    with torch.no_grad():
        out = operator(q, k, k, [], *told, False, False)[0]
    assert out.shape == q.shape
    assert stub.launches[0].entry == "forward_kernel"
    assert attn(q, k, k).requires_grad
    (gradient,) = torch.autograd.grad(attn(q, k, k).sum(), q)
    assert gradient.shape == q.shape
    entries = {launch.entry for launch in stub.launches}
    assert {"delta_kernel", "query_gradient_kernel", "key_gradient_kernel"} <= entries


def test_a_package_without_gradients_says_so() -> None:
    wanted = Wanted(("sm_90",), ("fp16",), (64,))
    own = PackagedAttention(quick_package("full", wanted), StubDriver())
    trace = driver.trace_source(Source("full.pat", PROGRAMS["full"]))
    found = PackagedProgram(own, trace.kernel.attention.span)
    refusal = Program("x", trace.kernel, found).refuse_gradients(())
    assert refusal is not None and "--backward" in str(refusal.help)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "window.patk"
    path.write_bytes(quick_bytes("window", BUILT))
    attn = load(path)
    assert attn.name == "windowed" and attn.program().startswith("windowed.triton.")


def test_the_operators_take_inputs_and_plans() -> None:
    attn, stub = packaged("slopes")
    q = torch.zeros(1, 4, 70, 64, dtype=torch.float16)
    k = torch.zeros(1, 2, 70, 64, dtype=torch.float16)
    slope = torch.ones(4, requires_grad=True)
    out = attn(q, k, k, slope=slope, bias=torch.zeros(1, 70))
    assert stub.launches[0].entry == "forward_kernel"
    (gradient,) = torch.autograd.grad(out.sum(), slope)
    assert gradient.shape == slope.shape
    assert "query_gradient_kernel" in {launch.entry for launch in stub.launches}
    attn, stub = packaged("shares")
    attn(q, k, k)
    entries = [launch.entry for launch in stub.launches]
    assert entries[0] == "parts_of_map_0" and entries[-1] == "forward_kernel"


def test_the_operators_finish_rows() -> None:
    attn, stub = packaged("gated")
    q = torch.zeros(1, 4, 70, 64, dtype=torch.float16)
    k = torch.zeros(1, 2, 70, 64, dtype=torch.float16)
    gate, slope = (torch.ones(x, requires_grad=True) for x in ((1, 70, 4), (4,)))
    with torch.no_grad():
        attn(q, k, k, gate=gate, slope=slope)
    assert [x.entry for x in stub.launches] == ["forward_kernel", "forward_kernel"]
    out = attn(q, k, k, gate=gate, slope=slope)
    found = torch.autograd.grad(out.sum(), (gate, slope))
    assert [x.shape for x in found] == [gate.shape, slope.shape]
