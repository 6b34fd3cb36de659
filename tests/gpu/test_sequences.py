"""Sequences of programs with tile lists and with orders, on a GPU; skipped elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import patternc
from tests.backends.triton.programs import PROGRAMS

LENGTHS = (300, 0, 1, 513, 300)


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("name", ["listed", "mixed", "wide"])
def test_lists_and_orders(name: str, form: str, tmp_path: Path) -> None:
    """Output, LSE and gradients are those of the definition, sequence by sequence."""
    path = tmp_path / f"{name}.pat"
    path.write_text(PROGRAMS[name])
    numbers = torch.tensor(LENGTHS, device="cuda")
    given: dict[str, Any] = {"lengths": numbers}
    batch, n = len(LENGTHS), max(LENGTHS)
    if form == "packed":
        starts = torch.nn.functional.pad(numbers.cumsum(0), (1, 0))
        given = {"cu_seqlens": starts, "max_seqlen": n}
        batch, n = 1, sum(LENGTHS) + 7
    results = []
    for backend in ("triton", "reference"):
        attention = patternc.load(path, backend=backend)
        heads = attention.kernel.attention
        torch.manual_seed(8)
        own = [
            torch.randn(batch, count, n, 64, device="cuda").half().requires_grad_()
            for count in (heads.heads, heads.kv_heads, heads.kv_heads)
        ]
        output, lse = attention(*own, return_lse=True, **given)
        gradients = torch.autograd.grad(output.float().square().sum(), own)
        results.append((output, lse, *gradients))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)
