"""Which tiles a query tile visits where inputs choose blocks, step by step.

The functions of a step are run as plain Python on what the module lists: a kernel in
Gluon has no interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.backends.hopper.programs import module_of, text_of


@dataclass(frozen=True)
class Place:
    """An address of a tensor's element."""

    tensor: Tensor
    at: int = 0

    def __add__(self, other: int) -> Place:
        return Place(self.tensor, self.at + other)

    def __sub__(self, other: int) -> Place:
        return Place(self.tensor, self.at - other)


class Language:
    """What the functions of a step use of `triton.language`, on numbers."""

    maximum, minimum = max, min

    @staticmethod
    def where(condition: bool, lhs: int, rhs: int) -> int:
        return lhs if condition else rhs

    @staticmethod
    def load(place: Place, mask: bool = True, other: int = 0) -> int:
        if not mask:
            return other
        assert 0 <= place.at < place.tensor.numel()
        return int(place.tensor.flatten()[place.at])


def functions(name: str) -> dict[str, Callable[..., Any]]:
    """`key_steps`, `masked_tile` and `full_tile` of a program as Python."""
    text = text_of(name)
    found: dict[str, Any] = {"tl": Language}
    for function in ("key_steps", "masked_tile", "full_tile"):
        pattern = rf"^def {function}\(.*?(?=^@|^def )"
        match = re.search(pattern, text, re.DOTALL | re.MULTILINE)
        assert match is not None
        body = re.sub(r"\.to\(tl\.\w+\)|: gl\.constexpr", "", match[0])
        exec(body, found)  # noqa: S102
    return found


@pytest.mark.parametrize(
    ("n_q", "n_k", "q_offset"), [(700, 900, 200), (130, 1600, 1000), (300, 300, -100)]
)
@pytest.mark.parametrize("name", ["table", "wide"])
def test_every_visible_pair_is_in_one_step(
    name: str, n_q: int, n_k: int, q_offset: int, tmp_path: Path
) -> None:
    module, called = module_of(name, tmp_path), functions(name)
    torch.manual_seed(n_q)
    near = 700
    values = {"near": near} if name == "wide" else {}
    size_q, size_k = module.SIZE_Q, module.SIZE_K
    first_block, _, n_k_blocks = module.block_counts(n_q, n_k, q_offset)
    first, tiles = module.tiles_of(n_q, q_offset, 128)
    batch = 2 if name == "wide" else 1
    rows = max((q_offset + n_q - 1) // size_q + 1, 1)
    keep = torch.rand(batch, 4, rows, n_k_blocks) < 0.5
    blocks, ends = module.blocks_of(
        n_q, n_k, q_offset, values, module.as_pointers({"keep": keep}), keep.device
    )
    q = torch.arange(q_offset, q_offset + n_q)[:, None]
    k = torch.arange(n_k)[None]
    given = [Place(blocks), Place(ends), *values.values(), 4 if batch > 1 else 0]
    kinds = [0, 0]
    for b in range(batch):
        for h in range(4):
            block = keep[b, h][(q // size_q).clamp(min=0), k // size_k]
            within = k <= q
            if name == "wide":
                block = block | (k // size_k == 0) if h == 0 else block
                within = (q - k).abs() < near
            wanted = block & (q >= 0) & within
            seen = torch.zeros(n_q, n_k, dtype=torch.int32)
            for qt in range(first, first + tiles):
                n_masked, n_full, n_seen, slots = called["key_steps"](
                    qt, h, b, n_k, first, tiles, *given, first_block, 128
                )
                own = (q // 128 == qt) & (q >= 0)
                for t in range(n_masked):
                    kt = called["masked_tile"](t, slots)
                    step = (k // 128 == kt) & (k < n_seen) & own
                    seen += step & within if t < slots[0] else step
                for t in range(n_full):
                    kt = called["full_tile"](t, slots)
                    assert (kt + 1) * 128 <= n_k
                    seen += (k // 128 == kt) & own
                kinds[0] += n_masked
                kinds[1] += n_full
            assert torch.equal(seen, wanted.int())
    assert min(kinds) > 0
