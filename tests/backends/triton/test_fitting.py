"""What a kernel takes of a device is known before it is compiled."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from patternc.plan.choose import SHARED_BYTES
from patternc.plan.kernel import Schedule
from tests.backends.triton.programs import module_of
from tests.backends.triton.test_offline import run

LIMITS = {"hopper": SHARED_BYTES["sm_90"], "ampere": SHARED_BYTES["sm_80"]}


def _module(folder: Path, compiler: str, block: int) -> ModuleType:
    """A module that takes tensors for those of an NVIDIA GPU."""
    schedule = Schedule(block_q=block, block_k=block, warps=4, stages=1)
    module = module_of("window", folder, schedule)
    module.compiler_of = lambda _: compiler  # type: ignore[attr-defined]
    module.precision_of = (  # type: ignore[attr-defined]
        lambda q: "tf32x3" if q.dtype == torch.float32 else "ieee"
    )
    return module


@pytest.mark.parametrize(
    ("compiler", "kernel", "columns", "most"),
    [
        ("hopper", "forward", 128, 64),
        ("hopper", "query", 128, 64),
        ("hopper", "key", 64, 128),
        ("ampere", "forward", 128, 64),
        ("ampere", "key", 128, 64),
        ("ampere", "query", 256, 32),
        ("hopper", "query", 256, 32),
    ],
)
def test_tiles_that_are_too_large_are_refused_with_those_that_fit(
    compiler: str, kernel: str, columns: int, most: int, tmp_path: Path
) -> None:
    q = torch.zeros(1, 1, 1, columns)
    fits = _module(tmp_path, compiler, most)
    fits.check_fits(kernel, columns, q, "any")
    large = _module(tmp_path, compiler, 2 * most)
    with pytest.raises(ValueError, match="bytes of shared memory") as caught:
        large.check_fits(kernel, columns, q, "any")
    text = str(caught.value)
    assert f"block_q and block_k of at most {most}" in text
    assert str(LIMITS[compiler]) in text
    assert ("start on 16 bytes" in text) == (compiler == "hopper")
    large.check_fits(kernel, columns, q.half(), "any")
    large.check_fits(kernel, columns, q, "descriptor")


def test_a_call_says_so_before_anything_is_compiled(tmp_path: Path) -> None:
    module = _module(tmp_path, "hopper", 128)
    module.start = None  # type: ignore[attr-defined]
    q, k, v = (torch.zeros(1, n, 128, 256)[..., ::2] for n in (4, 2, 2))
    with pytest.raises(ValueError, match="need 262144 bytes of shared memory"):
        module.forward(q, k, v)


@pytest.mark.parametrize(("dtype", "warps"), [(torch.float32, 4), (torch.float16, 8)])
def test_the_second_launch_takes_no_more_warps_than_shared_memory_allows(
    dtype: torch.dtype, warps: int, tmp_path: Path
) -> None:
    """On eight warps float32 tiles of 64 x 128 would need 262144 bytes (Triton 3.6)."""
    module = _module(tmp_path, "hopper", 64)
    seen = []
    module.start_both = lambda *launches: seen.extend(launches)  # type: ignore[attr-defined]
    q, k, v = torch.zeros(3, 1, module.HEADS, 64, 128, dtype=dtype)
    module.forward(q, k[:, : module.KV_HEADS], v[:, : module.KV_HEADS])
    first, again = (launch[3] for launch in seen)
    assert (first["EXACT"], again["EXACT"]) == (False, True)
    assert (first["num_warps"], again["num_warps"]) == (4, warps)


def test_the_compiler_takes_what_was_predicted(tmp_path: Path) -> None:
    """No less, or calls that work would be refused; and not much more."""
    cases = (
        ("sm_80", "ampere", 16, 32, "forward"),
        ("sm_80", "ampere", 16, 32, "key"),
        ("sm_90", "hopper", 64, 64, "forward"),
    )
    programs = []
    for target, _, rows, keys, work in cases:
        name = "forward_kernel" if work == "forward" else f"{work}_gradient_kernel"
        programs.append(f"window,{target},16,fp32,any,{rows},{keys},4,1,{name}")
    found = run("compile_all", str(tmp_path), *programs).splitlines()
    least = _module(tmp_path, "ampere", 16).least_shared
    for (_, compiler, rows, keys, work), line in zip(cases, found, strict=True):
        taken = json.loads(line)["shared"]
        predicted = least(compiler, work, rows, keys, 16 * 4)
        assert predicted <= taken <= 2 * predicted


def test_other_compilers_have_warps_and_stages_of_their_own(tmp_path: Path) -> None:
    fitted = _module(tmp_path, "amd", 64).fitted_to
    assert fitted("amd", "forward", 128, 4, 3) == (4, 1)
    assert fitted("ampere", "key", 128, 4, 2) == (8, 2)
    assert fitted("ampere", "key", 64, 4, 2) == (4, 2)
    assert fitted("ampere", "query", 128, 4, 2) == (4, 2)
    assert fitted("ampere", "forward", 128, 4, 3) == (4, 3)
    assert fitted("ampere", "forward", 256, 4, 2) == (8, 2)
    assert fitted("hopper", "key", 128, 4, 2) == (4, 2)
