"""Kernels with inputs, scores, sinks and orders on a CUDA device; else skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from patternc.plan.kernel import Schedule
from tests.backends.triton.data_programs import (
    BATCH,
    LAYOUT_SIZE,
    PROGRAMS,
    inputs_of,
    kernel_of,
    module_of,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device here"
)

LAYOUTS = {"scene", "axes"}


def tensors(name: str, n_q: int, n_k: int, dtype: torch.dtype) -> list[Tensor]:
    """Seeded normal q, k and v on the device."""
    attention = kernel_of(name).attention
    generator = torch.Generator().manual_seed(n_q)
    return [
        torch.randn(BATCH, heads, n, 64, generator=generator).to(dtype).cuda()
        for heads, n in (
            (attention.heads, n_q),
            (attention.kv_heads, n_k),
            (attention.kv_heads, n_k),
        )
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_output_is_as_near_as_plain_attention(name: str, tmp_path: Path) -> None:
    """Within rounding of the definition in float64; 1e-2 is a few bfloat16 steps."""
    module = module_of(name, tmp_path, Schedule())
    end = LAYOUT_SIZE if name in LAYOUTS else 700
    for n_q in (end, end // 3):
        given = {
            key: value.cuda()
            for key, value in inputs_of(name, n_q, end, end - n_q).items()
        }
        for dtype, limit in ((torch.bfloat16, 1e-2), (torch.float32, 2e-5)):
            q, k, v = tensors(name, n_q, end, dtype)
            output, lse = module.forward(q, k, v, return_lse=True, **given)
            wide = {
                key: value.double() if value.is_floating_point() else value
                for key, value in given.items()
            }
            wanted, wanted_lse = module.reference(
                *(x.double() for x in (q, k, v)), return_lse=True, **wide
            )
            torch.testing.assert_close(output.double(), wanted, atol=limit, rtol=limit)
            torch.testing.assert_close(
                lse.double(), wanted_lse, atol=1e-4, rtol=1e-4, equal_nan=True
            )


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
