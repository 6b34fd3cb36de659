"""Packages on a CUDA device: no compiler there, and the JIT's results to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc import driver
from patternc.attention import Attention
from patternc.backends.triton.build import Wanted, build_package
from patternc.runtime.attention import load
from patternc.source import Source
from tests.programs import EXAMPLES
from tests.runtime.packages import or_dense

ROOT = Path(__file__).parents[2]

SLIDING_TILE = """layout clip = text[226] + video[f = 5, y = 12, x = 16]

attention sliding_tile {
    heads 8
    layout clip
    mask  q in text | k in text
        | (abs(q.f - k.f) <= 1 & abs(q.y - k.y) <= 3 & abs(q.x - k.x) <= 3)
    order video by tile(f = 2, y = 4, x = 8)
}
"""
SLOPES = """attention slopes {
    heads 8 kv 2
    input slope[h] : float
    input bias[b, k] : float
    mask window(300)
    score s + slope[h] * (k - q) + bias[k]
}
"""
GATED = """attention gated {
    heads 8 kv 2
    input logit[h] : float
    input gate[b, q, h] : float
    mask streaming(4, 300)
    sink logit[h]                      for h in {0, 1, 2, 3}
    output o * sigmoid(gate[q, h])     for h in {2, 3, 4, 5}
    output 0.6 * o + 0.4 * v           for h in {6}
}
"""
RELATIVE = """attention relative {
    heads 8 kv 2
    input rel[h, 256] : float
    input far[64, h] : float
    input slope[h] : float
    mask causal
    score s + rel[h, min(q - k, 255)] + far[(q // 64 - k // 64) % 64, h] - slope[h] * (q - k)
}
"""
STDLIB = ROOT / "stdlib_patterns"
PROGRAMS = {
    "vertical_slash": (STDLIB / "vertical_slash.pat").read_text(),
    "block_topk": (STDLIB / "block_topk.pat").read_text(),
    "moba": (STDLIB / "moba.pat").read_text(),
    "nsa_selected": (STDLIB / "nsa_selected.pat").read_text(),
    "slash_or_dense": or_dense((STDLIB / "vertical_slash.pat").read_text()),
    "slopes": SLOPES,
    "gated": GATED,
    "relative": RELATIVE,
    "duo": EXAMPLES["duo"],
    "phi3_small": EXAMPLES["phi3_small"],
    "sliding_tile": SLIDING_TILE,
}
DIMS = (64, 128)

ALONE = """
import json, sys, time
for name in ("triton", "lark", "islpy", "sympy"):
    sys.modules[name] = None
import torch
from patternc.runtime import load
path, data, result, grad = sys.argv[1:]
calls, inputs = torch.load(data, weights_only=True)


def inputs_of(q, k):
    own = {x: y.cuda() for x, y in inputs.items()}
    for name in {"bias", "gate"} & own.keys():
        own[name] = own[name][: len(q), : k.shape[2]]
    return own


torch.zeros(1, device="cuda")
torch.cuda.synchronize()
began = time.perf_counter()
attn = load(path)
q, k, v, d = (x.cuda() for x in calls[0])
torch.cuda.synchronize()
copied = time.perf_counter()
given = inputs_of(q, k)
attn(q, k, v, **given)
torch.cuda.synchronize()
first = time.perf_counter()
found = []
for call in calls:
    q, k, v, d = (x.cuda() for x in call)
    if grad == "yes":
        q, k, v = (x.requires_grad_() for x in (q, k, v))
    given = inputs_of(q, k)
    wanted = [x.requires_grad_() for x in given.values()] if grad == "yes" else []
    out, lse = attn(q, k, v, return_lse=True, **given)
    parts = [out, lse]
    if grad == "yes":
        parts += torch.autograd.grad((out * d).sum(), (q, k, v, *wanted))
    if attn.manifest.facts.plan is not None:
        parts += attn.plan(q, k).tables.values()
    found.append([x.detach().cpu() for x in parts])
torch.save(found, result)
print(json.dumps({"load": copied - began, "first": first - began}))
"""


def target() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The package of a program for one target, built once."""
    folder = tmp_path_factory.mktemp("packages")

    def get(name: str, own: str) -> Path:
        path = folder / f"{name}_{own}.patk"
        if not path.exists():
            trace = driver.trace_source(Source(f"{name}.pat", PROGRAMS[name]))
            other = driver.dense_trace(trace)
            dense = None if other is None else other.kernel
            wanted = Wanted((own,), ("bf16",), DIMS, backward=True)
            count = os.cpu_count() or 1
            content = build_package(trace.kernel, wanted, processes=count, dense=dense)
            path.write_bytes(content)
        return path

    return get


def jit(name: str) -> Attention:
    source = Source(f"{name}.pat", PROGRAMS[name])
    return Attention(driver.trace_source(source)).backend("hopper")


def calls_for(name: str) -> list[list[Tensor]]:
    """Calls with q, k, v and the output's gradient: long, ragged, one query, a NaN."""
    attention = driver.compile_source(Source(f"{name}.pat", PROGRAMS[name])).attention
    torch.manual_seed(5)
    found = []
    sizes = [(1, 1000, 1000), (2, 333, 777), (1, 1, 5000), (3, 64, 64), (1, 300, 9000)]
    if attention.layout is not None:
        sizes = [(1, attention.layout.size, attention.layout.size)] * 2
    for at, (batch, n_q, n_k) in enumerate(sizes):
        dim = DIMS[at % 2]
        q = torch.randn(batch, attention.heads, n_q, dim, dtype=torch.bfloat16)
        k = torch.randn(batch, attention.kv_heads, n_k, dim, dtype=torch.bfloat16)
        v, d = torch.randn_like(k), torch.randn_like(q)
        found.append([q, k, v, d])
    spoiled = [x.clone() for x in found[0]]
    spoiled[2][0, 0, -1, 3] = torch.nan
    return [*found, spoiled]


def inputs_for(name: str) -> dict[str, Tensor]:
    """Inputs; those of a batch element and a position are cut to the sizes of a call."""
    torch.manual_seed(6)
    if name == "relative":
        parts = ((8, 256), (64, 8), (8,))
        return dict(zip(("rel", "far", "slope"), map(torch.randn, parts), strict=True))
    if name == "gated":
        return {"logit": torch.randn(8), "gate": torch.randn(3, 9000, 8)}
    if name != "slopes":
        return {}
    return {"slope": torch.rand(8), "bias": torch.randn(3, 9000)}


def alone(
    path: Path,
    calls: object,
    folder: Path,
    grad: bool,
    inputs: dict[str, Tensor] | None = None,
) -> tuple[Any, Any]:
    """Run calls where nothing but torch can be imported and no compiler is found."""
    data, result = folder / "calls.pt", folder / "results.pt"
    torch.save((calls, inputs or {}), data)
    arguments = [str(path), str(data), str(result), "yes" if grad else "no"]
    environment = {**os.environ, "PATH": "/nonexistent", "PYTHONPATH": str(ROOT)}
    environment.pop("CC", None)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    times = json.loads(done.stdout.splitlines()[-1])
    return torch.load(result, weights_only=True), (times, done.stderr)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_bits_without_a_compiler(
    name: str, packages: Callable[[str, str], Path], tmp_path: Path
) -> None:
    calls, inputs = calls_for(name), inputs_for(name)
    found, _ = alone(packages(name, target()), calls, tmp_path, True, inputs)
    attn = jit(name)
    for call, parts in zip(calls, found, strict=True):
        q, k, v, d = (x.cuda() for x in call)
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        given: dict[str, Any] = {x: y.cuda() for x, y in inputs.items()}
        for cut in {"bias", "gate"} & given.keys():
            given[cut] = given[cut][: len(q), : k.shape[2]]
        wanted = [x.requires_grad_() for x in given.values()]
        out, lse = attn(q, k, v, return_lse=True, **given)
        own = [out, lse, *torch.autograd.grad((out * d).sum(), (q, k, v, *wanted))]
        if attn.trace.kernel.attention.selections:
            own += attn.plan(q, k).tables.values()
        for mine, its in zip(own, parts, strict=True):
            same = mine.detach().cpu()
            assert torch.equal(same.isnan(), its.isnan())
            assert torch.equal(same.nan_to_num(7.0), its.nan_to_num(7.0))


def test_from_load_to_the_first_result(
    packages: Callable[[str, str], Path], tmp_path: Path
) -> None:
    calls = calls_for("duo")[:1]
    results = []
    for _ in range(3):
        _, (times, _) = alone(packages("duo", target()), calls, tmp_path, False)
        results.append(times["first"] * 1e3)
    print(f"\nload to first result: {min(results):.1f} ms")
    assert min(results) < 100


def overhead(run: Callable[[], object]) -> float:
    """Microseconds that the host needs for a call, the device being far behind."""
    best = float("inf")
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(50):
            run()
        best = min(best, (time.perf_counter() - began) / 50)
        torch.cuda.synchronize()
    return best * 1e6


def test_launches_cost_no_more_than_the_jit(
    packages: Callable[[str, str], Path],
) -> None:
    q = torch.randn(1, 32, 128, 64, dtype=torch.bfloat16, device="cuda")
    k = torch.randn(1, 8, 128, 64, dtype=torch.bfloat16, device="cuda")
    packaged, compiled = load(packages("duo", target())), jit("duo")
    with torch.no_grad():
        for attn in (packaged, compiled):
            attn(q, k, k)
        own = overhead(lambda: packaged(q, k, k))
        its = overhead(lambda: compiled(q, k, k))
    print(f"\na call: package {own:.1f} us, JIT {its:.1f} us")
    assert own <= its


@pytest.mark.parametrize(("name", "n"), [("duo", 500), ("vertical_slash", 700)])
def test_a_cuda_graph(name: str, n: int, packages: Callable[[str, str], Path]) -> None:
    """Of attention alone, and of a plan with it."""
    attn = load(packages(name, target()))
    attn.prepare()
    q = torch.randn(1, 32, n, 128, dtype=torch.bfloat16, device="cuda")
    k = torch.randn(1, 8, n, 128, dtype=torch.bfloat16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        attn(q, k, k)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            out = attn(q, k, k)
        q.copy_(torch.randn_like(q))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, attn(q, k, k))


def test_ptx_of_an_older_target(
    packages: Callable[[str, str], Path], tmp_path: Path
) -> None:
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("machine code of sm_80 runs here as it is")
    calls = calls_for("duo")[:2]
    found, (times, said) = alone(packages("duo", "sm_80"), calls, tmp_path, True)
    assert f"no code for {target()}; the driver assembles its PTX of sm_80" in said
    print(f"\nload to first result by PTX: {times['first'] * 1e3:.0f} ms")
    attn = jit("duo")
    for call, parts in zip(calls, found, strict=True):
        q, k, v, _ = (x.cuda() for x in call)
        with torch.no_grad():
            out, lse = attn(q, k, v, return_lse=True)
        torch.testing.assert_close(parts[0], out.cpu(), atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(parts[1], lse.cpu(), atol=1e-3, rtol=1e-3)


def test_tensors_that_are_copied_give_the_same_bits(
    packages: Callable[[str, str], Path],
) -> None:
    attn, compiled = load(packages("duo", target())), jit("duo")
    q, k, v, _ = (x.cuda() for x in calls_for("duo")[0])
    crooked = torch.empty(q.numel() + 1, dtype=q.dtype, device="cuda")[1:].view(q.shape)
    crooked.copy_(q)
    with torch.no_grad():
        assert torch.equal(attn(crooked, k, v), attn(q, k, v))
        assert torch.equal(attn(crooked, k, v), compiled(q, k, v))


def test_several_devices(packages: Callable[[str, str], Path]) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one device here")
    attn = load(packages("duo", target()))
    q, k, v, _ = calls_for("duo")[0]
    with torch.no_grad():
        parts = [
            attn(*(x.to(f"cuda:{at}") for x in (q, k, v))).cpu()
            for at in range(torch.cuda.device_count())
        ]
    assert all(torch.equal(parts[0], x) for x in parts)
