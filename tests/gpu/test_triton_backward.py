"""Gradients of the generated kernels on a CUDA device; skipped where there is none.

Sizes are those that FlashAttention's tests use, rules those of `patternc.verify`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patternc.backends.triton.load import TritonBackend
from patternc.plan.kernel import Schedule
from patternc.verify_gradients import verify_gradients
from tests.backends.triton import data_programs, pair_programs, programs
from tests.stdlib.mask_mods import ORACLES
from tests.stdlib.test_flex import kernel_of as standard_kernel

BIG = Schedule()
PAIRS = (
    (1, 1),
    (64, 128),
    (128, 192),
    (239, 1),
    (799, 3),
    (113, 203),
    (128, 217),
    (108, 256),
    (256, 512),
    (384, 256),
    (640, 128),
    (1023, 1024),
    (1024, 1023),
    (200, 200),
    (300, 300),
    (129, 129),
    (255, 255),
    (500, 512),
    (512, 500),
    (333, 444),
)
FEW = ((1, 1), (113, 203), (203, 113), (300, 300))
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
BRIEF = (torch.bfloat16,)
"""Each dtype compiles up to seven kernels: most programs are held to one."""


@pytest.mark.parametrize(
    ("name", "head_dim", "dtypes"),
    [
        ("causal", 64, DTYPES),
        ("causal", 128, DTYPES),
        ("window", 64, BRIEF),
        ("s2", 128, BRIEF),
    ],
)
def test_ragged_pairs(
    name: str, head_dim: int, dtypes: tuple[torch.dtype, ...]
) -> None:
    """More rows than keys, so that some rows see nothing, and fewer."""
    found = verify_gradients(
        programs.kernel_of(name, BIG),
        ["triton"],
        "cuda",
        dtypes=dtypes,
        sizes=PAIRS,
        batch=1,
        head_dim=head_dim,
    )
    assert len(found) == len(PAIRS) * len(dtypes) * 3
    assert [result for result in found if not result.ok] == []


@pytest.mark.parametrize("name", ["prefix", "documents"])
def test_ragged_pairs_with_data(name: str) -> None:
    found = verify_gradients(
        data_programs.kernel_of(name, BIG),
        ["triton"],
        "cuda",
        dtypes=BRIEF,
        sizes=PAIRS,
        batch=2,
    )
    assert len(found) == len(PAIRS) * 3
    assert [result for result in found if not result.ok] == []


@pytest.mark.parametrize("name", data_programs.PROGRAMS)
def test_programs_with_data(name: str) -> None:
    """Scores, sinks, weights, outputs and orders; gradients of inputs, too."""
    kernel = data_programs.kernel_of(name, BIG)
    found = verify_gradients(
        kernel, ["triton"], "cuda", dtypes=BRIEF, sizes=FEW, batch=2
    )
    assert len(found) >= 3
    assert [result for result in found if not result.ok] == []


@pytest.mark.parametrize("name", pair_programs.PROGRAMS)
def test_inputs_read_at_pairs(name: str) -> None:
    """Distances, blocks, single pairs, orders and lists."""
    kernel = pair_programs.kernel_of(name, BIG)
    dtypes = DTYPES if name in ("t5", "swin") else BRIEF
    found = verify_gradients(
        kernel, ["triton"], "cuda", dtypes=dtypes, sizes=FEW, batch=2
    )
    own = [x.name for x in kernel.attention.inputs if x.element.value == "float"]
    assert {result.of for result in found} == {"q", "k", "v", *own}
    assert [result for result in found if not result.ok] == []


@pytest.mark.parametrize("name", ["t5", "swin", "coarse"])
def test_inputs_read_at_pairs_have_the_same_bits_in_every_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the queries are launched in parts, whose sums differ by rounding."""
    kernel = pair_programs.kernel_of(name, BIG)
    attention: Any = TritonBackend().load(kernel)
    generator = torch.Generator("cuda").manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    q, k, v, d_out = (normal(2, 4, 1000, 64).bfloat16() for _ in range(4))
    (table,) = (x.name for x in kernel.attention.inputs)
    sizes = {"t5": (257,), "swin": (15, 15), "coarse": (16, 32)}[name]
    inputs = {table: normal(1, 4, *sizes)}
    common = {"scale": 0.125, "q_offset": 0, "params": {}, "inputs": inputs}
    out, lse = attention.attend(q, k, v, **common)

    def found() -> Any:
        given = (q, k, v, out, lse, d_out, None)
        return attention.gradients(*given, **common, wanted=(table,))[3][table]

    whole = found()
    assert torch.equal(found(), whole)
    monkeypatch.setattr(attention.module, "PAIR_BYTES", 1 << 20)
    in_parts = found()
    assert torch.equal(found(), in_parts)
    torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ORACLES)
def test_standard_patterns(name: str) -> None:
    n = ORACLES[name].n
    found = verify_gradients(
        standard_kernel(name),
        ["triton"],
        "cuda",
        dtypes=BRIEF,
        sizes=((n, n),),
        batch=1,
    )
    assert len(found) == 3
    assert [result for result in found if not result.ok] == []


@pytest.mark.parametrize(
    ("head_dim", "value_dim"),
    [(16, 16), (32, 32), (80, 80), (192, 192), (256, 256), (64, 128), (192, 128)],
)
def test_head_sizes(head_dim: int, value_dim: int) -> None:
    """64 x 64 tiles, which shared memory holds for every head size but 256 in float32."""
    kernel = programs.kernel_of("duo", Schedule(64, 64, 4, None))
    dtypes = DTYPES if head_dim == 80 else BRIEF
    found = verify_gradients(
        kernel,
        ["triton"],
        "cuda",
        dtypes=dtypes,
        sizes=FEW,
        head_dim=head_dim,
        value_dim=value_dim,
    )
    assert len(found) == len(FEW) * len(dtypes) * 3
    assert [result for result in found if not result.ok] == []


def test_wide_heads_in_float32() -> None:
    """In tiles of 32 x 32: what 64 x 64 needs is more than a device has."""
    found = verify_gradients(
        programs.kernel_of("causal", Schedule(32, 32, 4, None)),
        ["triton"],
        "cuda",
        dtypes=(torch.float32,),
        sizes=FEW,
        head_dim=192,
    )
    assert [result for result in found if not result.ok] == []
