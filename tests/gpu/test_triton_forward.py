"""The generated kernels on a CUDA device; skipped where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from patternc import driver
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store
from patternc.verify import DTYPES, verify
from tests.backends.triton.programs import PROGRAMS, kernel_of, module_of
from tests.programs import EXAMPLES

SIZES = ((1, 1), (64, 128), (200, 333), (333, 200), (1, 1000), (1024, 1024))

LONG = """attention long {
    heads 1
    mask streaming(4, 1024)
}
"""


def long_module(folder: Path) -> ModuleType:
    """Sink 4 and window 1024, one head."""
    kernel = driver.compile_source(Source("long.pat", LONG), None, {}, Schedule())
    return import_file(Store(folder).put(emit(kernel, LONG, "long"), "long", ".py"))


def within_budget(
    kernel: Kernel, head_dim: int, dtypes: tuple[torch.dtype, ...] = DTYPES
) -> None:
    """Every dtype and size is within the budget that float64 gives."""
    results = verify(
        kernel, ["triton"], "cuda", sizes=SIZES, head_dim=head_dim, dtypes=dtypes
    )
    assert len(results) == len(SIZES) * len(dtypes) * 2
    assert [result for result in results if not result.ok] == []


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", PROGRAMS)
def test_small_programs(name: str, head_dim: int) -> None:
    # float32, the slowest to compile, for one head size.
    dtypes = DTYPES if head_dim == 64 else (torch.bfloat16,)
    within_budget(kernel_of(name, Schedule()), head_dim, dtypes)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_programs(name: str) -> None:
    source = Source(f"{name}.pat", EXAMPLES[name])
    within_budget(driver.compile_source(source, None, {}, Schedule()), 128)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(128, 128, 8, 2),
        Schedule(64, 64, 4, 3),
        Schedule(64, 128, 4, 2),
        Schedule(128, 32, 4, 4),
    ],
)
def test_schedules(schedule: Schedule) -> None:
    within_budget(kernel_of("duo", schedule), 128)


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def _columns_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(2, 3).contiguous().transpose(2, 3)


def _misaligned(tensor: Tensor) -> Tensor:
    flat = tensor.new_empty(tensor.numel() + 1)[1:]
    return flat.view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("view", [_transposed, _columns_first, _misaligned])
def test_views_give_the_same(view: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    module = module_of("mixed", tmp_path, Schedule())
    q = torch.randn(2, 4, 300, 128, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn(2, 2, 2, 500, 128, device="cuda", dtype=torch.bfloat16)
    output, lse = module.forward(q, k, v, return_lse=True)
    other = module.forward(view(q), view(k), view(v), return_lse=True)
    torch.testing.assert_close(output, other[0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(lse, other[1], atol=1e-4, rtol=1e-4)


def test_aligned_pointer_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of("duo", tmp_path, Schedule())
    q = torch.randn(1, 6, 300, 64, device="cuda", dtype=torch.float16)
    k, v = torch.randn(2, 1, 3, 500, 64, device="cuda", dtype=torch.float16)
    wanted = module.forward(q, k, v)
    monkeypatch.setattr(module, "access_of", lambda q, k, v: "aligned")
    torch.testing.assert_close(module.forward(q, k, v), wanted, atol=1e-2, rtol=1e-2)


def test_one_compilation_serves_every_size(tmp_path: Path) -> None:
    module = module_of("window", tmp_path, Schedule())

    def compiled() -> set[str]:
        caches = module.forward_kernel.device_caches.values()
        return {str(key) for item in caches for key in item[0]}

    before: set[str] = set()
    for at, (batch, n_q, n_k, q_offset, width) in enumerate(
        (
            (1, 1, 1, None, 1),
            (1, 1000, 1000, None, 40),
            (1, 16, 16, 0, 16),
            (2, 17, 1000, 5, 300),
            (3, 1024, 1024, None, 0),
            (1, 200, 100, -64, 2**30),
        )
    ):
        q = torch.randn(batch, 4, n_q, 64, device="cuda", dtype=torch.bfloat16)
        k = torch.randn(batch, 2, n_k, 64, device="cuda", dtype=torch.bfloat16)
        module.forward(q, k, k.clone(), q_offset=q_offset, w=width)
        if at < 2:  # a kernel for few queries, one for many
            before = compiled()
    assert compiled() - before == set()


@pytest.mark.parametrize("n_q", [1, 16, 64])
def test_decode(n_q: int, tmp_path: Path) -> None:
    """Shares and packed heads, as exact as one program for each query tile."""
    module = module_of("causal", tmp_path, Schedule())
    q = torch.randn(2, 4, n_q, 128, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn(2, 2, 2, 20_000, 128, device="cuda", dtype=torch.bfloat16)
    assert module.splits_of(q, 4, 312, 20_000, {}) > 8
    output, lse = module.forward(q, k, v, return_lse=True)
    wanted = module.reference(q.double(), k.double(), v.double(), return_lse=True)
    torch.testing.assert_close(output.double(), wanted[0], atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(lse.double(), wanted[1].double(), atol=1e-4, rtol=1e-5)
    assert torch.equal(module.forward(q, k, v), output)


def windowed_rows(q: Tensor, k: Tensor, v: Tensor, rows: list[int]) -> Tensor:
    """The definition of sink 4 and window 1024 for single rows, float64."""
    result = []
    for row in rows:
        first = max(0, row - 1023)
        keys = torch.arange(first, row + 1, device=q.device)
        sink = torch.arange(min(4, first), device=q.device)
        seen = torch.cat([sink, keys])
        logits = k[seen].double() @ q[row].double() / math.sqrt(q.shape[1])
        result.append(torch.softmax(logits, 0) @ v[seen].double())
    return torch.stack(result)


def test_a_million_tokens(tmp_path: Path) -> None:
    module = long_module(tmp_path)
    n = 1 << 20
    q, k, v = torch.randn(3, 1, 1, n, 128, device="cuda", dtype=torch.bfloat16)
    output = module.forward(q, k, v)[0, 0]
    rows = [0, 3, 4, 1023, 1024, 1100, n // 2 + 77, n - 1]
    wanted = windowed_rows(q[0, 0], k[0, 0], v[0, 0], rows)
    torch.testing.assert_close(output[rows].double(), wanted, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("access", ["descriptor", "any"])
def test_addresses_beyond_32_bits(
    access: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = long_module(tmp_path)
    monkeypatch.setattr(module, "access_of", lambda q, k, v: access)
    n, batch = 1 << 18, 129  # 129 x 2**18 x 64 elements are more than 2**31
    shape = (batch, 1, n, 64)
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GiB of free device memory")
    q = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    k, v = q.roll(1, 2), q
    output = module.forward(q, k, v)
    rows = [5, 2000, n - 1]
    for b in (0, batch - 1):
        wanted = windowed_rows(q[b, 0], k[b, 0], v[b, 0], rows)
        found = output[b, 0, rows].double()
        torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-2)
