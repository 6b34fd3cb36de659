"""Gradients are verified: what is right passes, and what is wrong is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patternc.backends.tiled import TiledAttention
from patternc.plan.kernel import Kernel
from patternc.verify import Quantity
from patternc.verify_gradients import verify_gradients
from tests.backends.triton import data_programs
from tests.kernels import CAUSAL, kernel_of, two_groups
from tests.stdlib.mask_mods import ORACLES
from tests.stdlib.test_flex import kernel_of as standard_kernel

SIZES = ((1, 1), (40, 70), (50, 33))


def test_what_is_compared() -> None:
    kernel = data_programs.kernel_of("alibi")
    found = verify_gradients(kernel, ["tiled"], sizes=SIZES, head_dim=16)
    assert all(result.ok for result in found)
    assert len(found) == len(SIZES) * 3 * 4
    assert {result.of for result in found} == {"q", "k", "v", "slope"}
    assert {result.quantity for result in found} == {Quantity.GRADIENT}
    assert {result.dtype for result in found} == {"float32", "float16", "bfloat16"}
    large = [result for result in found if result.n_q > 1 and result.of in "qkv"]
    narrow = [result.budget for result in large if result.dtype == "float32"]
    assert 0 < max(narrow) < 1e-5
    assert all(result.budget < 1 for result in large)


@pytest.mark.parametrize("name", ORACLES)
def test_the_standard_patterns(name: str) -> None:
    kernel, n = standard_kernel(name), ORACLES[name].n
    dtypes = [torch.float32, torch.bfloat16][: 1 if ORACLES[name].heads > 8 else 2]
    found = verify_gradients(
        kernel,
        ["tiled"],
        dtypes=dtypes,
        sizes=((n, n),),
        batch=1,
        head_dim=8,
    )
    assert len(found) == len(dtypes) * 3
    assert [result for result in found if not result.ok] == []


@pytest.mark.parametrize(
    "name", ["weights", "sinks", "outputs", "clusters", "prefix", "unseeing"]
)
def test_programs_with_data(name: str) -> None:
    kernel = data_programs.kernel_of(name)
    found = verify_gradients(kernel, ["tiled"], sizes=SIZES, head_dim=16)
    assert [result for result in found if not result.ok] == []


def test_float64_is_held_to_float64() -> None:
    found = verify_gradients(
        kernel_of(CAUSAL),
        ["tiled"],
        dtypes=(torch.float64,),
        sizes=SIZES,
        head_dim=16,
        value_dim=24,
    )
    assert all(result.ok and result.budget < 1e-13 for result in found)


def without_last_range(kernel: Kernel) -> Kernel:
    cover = kernel.covers[0]
    assert cover.ranges
    covers = (replace(cover, ranges=cover.ranges[:-1]), *kernel.covers[1:])
    return replace(kernel, covers=covers)


@pytest.mark.parametrize("kernel", [kernel_of(CAUSAL), two_groups()])
def test_a_lost_tile_is_found(kernel: Kernel) -> None:
    found = verify_gradients(
        without_last_range(kernel), ["tiled"], sizes=((70, 70),), head_dim=16
    )
    assert {result.of for result in found if not result.ok} == {"q", "k", "v"}


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_wrong_gradient_is_found(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element that is off by less than the greatest, in every dtype."""
    plain = TiledAttention.gradients

    def spoiled(self: TiledAttention, *tensors: Tensor, **more: object) -> object:
        found = plain(self, *tensors, **more)  # type: ignore[arg-type]
        found[wrong][0, 0, 3] += 0.3 * found[wrong][0, 0].abs().max()  # type: ignore[index]
        return found

    monkeypatch.setattr(TiledAttention, "gradients", spoiled)
    found = verify_gradients(
        kernel_of(CAUSAL), ["tiled"], sizes=((40, 40),), head_dim=16
    )
    assert {result.of for result in found if not result.ok} == {"qkv"[wrong]}
    assert sum(not result.ok for result in found) == 3
