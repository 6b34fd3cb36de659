"""Chosen diagonals and columns in one softmax, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patternc.backends.triton.load import TritonAttention, TritonBackend
from patternc.plan.kernel import Kernel
from patternc.store import Store
from tests.backends.triton.backward_calls import by_kernels, excess
from tests.backends.triton.stripe_programs import (
    PROGRAMS,
    Call,
    inputs_of,
    kernel_of,
    step_for,
)

CALLS = [
    (Call(70, 70, 0, 0.05), (32, 32)),
    (Call(37, 150, 113, 0.4), (16, 64)),
    (Call(50, 40, -20, 1.0), (64, 16)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stripes")


def loaded(kernel: Kernel, folder: Path) -> TritonAttention:
    return TritonBackend(Store(folder)).load(kernel)


def check_forward(kernel: Kernel, folder: Path, call: Call) -> None:
    """The kernel says what the definition says."""
    step = step_for(kernel, call)
    own = loaded(kernel, folder)
    assert "stripe_words" in own.module.forward_kernel.arg_names
    given = inputs_of(kernel, call)
    arguments = {"scale": 0.125, "q_offset": call.q_offset, "return_lse": True}
    found = own.module.forward(step.q, step.k, step.v, **arguments, **given)
    wanted = step.run(step.q, step.k, step.v, step.inputs)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5, equal_nan=True)


@pytest.mark.parametrize("call, blocks", CALLS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_definition(
    name: str, call: Call, blocks: tuple[int, int], folder: Path
) -> None:
    check_forward(kernel_of(name, *blocks), folder, call)


@pytest.mark.parametrize("call, blocks", CALLS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_the_definition(
    name: str, call: Call, blocks: tuple[int, int], folder: Path
) -> None:
    kernel = kernel_of(name, *blocks)
    step = step_for(kernel, call)
    found = excess(step, by_kernels(step, loaded(kernel, folder), (*step.learned,)))
    assert max(found.values()) <= 1, found
