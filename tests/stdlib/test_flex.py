"""FlexAttention, written by others, agrees on every standard pattern."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from patternc import check, passes, stdlib_patterns
from patternc.backends.reference import ReferenceBackend
from patternc.backends.tiled import TiledBackend
from patternc.plan.expand import plan_mask
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from patternc.source import Source
from patternc.syntax.parse import parse
from tests.stdlib.mask_mods import ORACLES, Oracle
from tests.stdlib.selector_cases import CASES

SMALL = Schedule(block_q=32, block_k=32)


@cache
def kernel_of(name: str) -> Kernel:
    """The plan of a standard file's attention, with the oracle's parameters."""
    oracle = ORACLES[name]
    source = Source(f"{name}.pat", stdlib_patterns.text(name))
    # Not through the driver: the asserts are about the published parameters.
    attention = check.lower(parse(source), oracle.entry, oracle.values)
    return plan(passes.run(attention)[-1][1], SMALL)


def tables_of(oracle: Oracle) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype]]:
    return {name: tensor.numpy() for name, tensor in oracle.inputs.items()}


def test_every_standard_file_has_an_oracle() -> None:
    others = {case.name for case in CASES}  # test_selectors.py
    assert set(ORACLES) | others == set(stdlib_patterns.files())


@pytest.mark.parametrize("name", ORACLES)
def test_the_mask(name: str) -> None:
    oracle, kernel = ORACLES[name], kernel_of(name)
    n, heads = oracle.n, oracle.heads
    wanted = create_mask(oracle.mask_mod, None, heads, n, n, device="cpu")[0].numpy()
    for head in {0, heads // 2, heads - 1}:
        found = plan_mask(kernel, head, n, n, 0, {}, tables_of(oracle))
        np.testing.assert_array_equal(found, wanted[head])
    assert 0 < np.count_nonzero(wanted) < wanted.size


@pytest.mark.parametrize("name", ORACLES)
def test_the_output(name: str) -> None:
    oracle, kernel = ORACLES[name], kernel_of(name)
    n, heads = oracle.n, kernel.attention.heads
    generator = torch.Generator().manual_seed(n)
    q, k, v = torch.randn((3, 1, heads, n, 16), generator=generator).double()
    wanted = flexed(oracle, q, k, v)
    inputs = {table: tensor[None] for table, tensor in oracle.inputs.items()}
    for backend in (ReferenceBackend(), TiledBackend()):
        found = backend.load(kernel)(
            q,
            k,
            v,
            scale=0.25,
            q_offset=0,
            params={},
            return_lse=False,
            inputs=inputs,
        )
        assert isinstance(found, Tensor)
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)


def flexed(oracle: Oracle, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Eager FlexAttention, as for who debugs a mask: nothing of it is traced."""
    n = oracle.n
    blocks = create_block_mask(oracle.mask_mod, None, q.shape[1], n, n, device="cpu")
    with patch.object(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True):
        found = flex.flex_attention(q, k, v, block_mask=blocks, scale=0.25)
    assert isinstance(found, Tensor)
    return found
