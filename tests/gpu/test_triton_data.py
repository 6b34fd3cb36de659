"""Kernels with inputs, scores, sinks and orders on a CUDA device; else skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patternc.plan.kernel import Schedule
from patternc.verify import verify
from tests.backends.triton.data_programs import (
    BATCH,
    LAYOUT_SIZE,
    PROGRAMS,
    kernel_of,
    module_of,
)

LAYOUTS = {"scene", "axes"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_within_the_budget_of_float64(name: str) -> None:
    """Every dtype; unnormalised weights add up to tens, so no fixed limit would do."""
    end = LAYOUT_SIZE if name in LAYOUTS else 700
    sizes = [(end, end), (end // 3, end)]
    results = verify(kernel_of(name), ["triton"], "cuda", sizes=sizes, batch=BATCH)
    assert len(results) >= len(sizes) * 3
    assert [result for result in results if not result.ok] == []


def test_documents_of_a_long_sequence(tmp_path: Path) -> None:
    """A million tokens in documents of a thousand: some rows, by definition."""
    module = module_of("documents", tmp_path, Schedule())
    n = 1 << 20
    doc = (torch.arange(n, device="cuda") // 1000).int()
    q, k, v = (
        torch.randn(1, 2, n, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)
    )
    output = module.forward(q, k, v, doc=doc)
    for row in (0, 999, 1000, 777_777, n - 1):
        start = row // 1000 * 1000
        keys, values = k[0, 1, start : row + 1], v[0, 1, start : row + 1]
        logits = (keys.double() @ q[0, 1, row].double()) / 8
        wanted = torch.softmax(logits, 0) @ values.double()
        torch.testing.assert_close(
            output[0, 1, row].double(), wanted, atol=1e-2, rtol=1e-2
        )
