"""Chosen diagonals and columns in one softmax, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from patternc import driver
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store

PROGRAMS = {
    "vertical_slash": """attention vertical_slash {
    heads 2 kv 1
    input columns[h, k] : bool
    input diagonals[b, h, 96] : bool
    mask causal & (columns[h, k] | diagonals[h, q - k] | k < 2 | q - k < 3)
}
""",
    "columns": """attention columns {
    heads 2
    input columns[k] : bool
    mask columns[k] & abs(q - k) < 40
}
""",
    "both_sides": """attention both_sides {
    heads 2
    input diagonals[h, 300] : bool
    mask diagonals[h, q - k + 150]
}
""",
    "groups": """attention groups(near: runtime = 5) {
    heads 4
    input columns[b, h, k] : bool
    input slash[64] : int
    input far[h] : int
    mask window(9)                                             for h in {0}
    mask causal & (columns[h, k] | slash[q - k] == h)          for h in {1}
    mask slash[k - q] == 1 | slash[(q - k) % 64] == 2          for h in {2}
    mask causal & (columns[h, k] | near <= q - k < far[h])     for h in {3}
    score s + (k - q) * 0.01                                   for h in {1, 2}
    sink 0.25                                                  for h in {3}
    weights sigmoid(-0.5)                                      for h in {2}
}
""",
}


@cache
def kernel_of(name: str, block_q: int, block_k: int) -> Kernel:
    source = Source(f"{name}.pat", PROGRAMS[name])
    return driver.compile_source(source, None, {}, Schedule(block_q, block_k))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stripes")


def module_of(folder: Path, name: str, block_q: int, block_k: int) -> ModuleType:
    text = emit(kernel_of(name, block_q, block_k), PROGRAMS[name], name)
    return import_file(Store(folder).put(text, f"{name}_{block_q}_{block_k}", ".py"))


@dataclass(frozen=True)
class Call:
    """A call: its sizes, how much is chosen, and the seed of everything random."""

    n_q: int
    n_k: int
    q_offset: int
    density: float
    seed: int = 0

    def arguments(self, kernel: Kernel) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """q, k and v, and what is given by name."""
        generator = torch.Generator().manual_seed(self.seed)
        attention = kernel.attention
        counts = (attention.heads, attention.kv_heads, attention.kv_heads)
        lengths = (self.n_q, self.n_k, self.n_k)
        tensors = tuple(
            torch.randn(2, count, n, 16, generator=generator)
            for count, n in zip(counts, lengths, strict=True)
        )

        def chosen(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator) < self.density

        heads = attention.heads
        given: dict[str, Any] = {"q_offset": self.q_offset}
        match attention.name:
            case "vertical_slash":
                given["columns"] = chosen(heads, self.n_k)
                given["diagonals"] = chosen(2, heads, 96)
            case "columns":
                given["columns"] = chosen(self.n_k)
            case "both_sides":
                given["diagonals"] = chosen(heads, 300)
            case _:
                given["columns"] = chosen(2, heads, self.n_k)
                given["slash"] = torch.randint(0, 4, (64,), generator=generator)
                given["far"] = torch.tensor([0, 0, 0, 30])
        return tensors, given


CALLS = st.builds(
    Call,
    st.integers(1, 80),
    st.integers(1, 90),
    st.integers(-20, 60),
    st.sampled_from([0.0, 0.03, 0.3, 0.9, 1.0]),
    st.integers(0, 9),
)


def check(folder: Path, name: str, blocks: tuple[int, int], call: Call) -> None:
    """The kernel says what the definition says."""
    kernel, module = kernel_of(name, *blocks), module_of(folder, name, *blocks)
    tensors, given = call.arguments(kernel)
    found = module.forward(*tensors, return_lse=True, **given)
    wanted = module.reference(*tensors, return_lse=True, **given)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5, equal_nan=True)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("blocks", [(32, 32), (64, 16), (16, 64)])
def test_equals_the_definition(
    name: str, blocks: tuple[int, int], folder: Path
) -> None:
    for call in (
        Call(80, 80, 0, 0.05),
        Call(37, 90, 53, 0.3),
        Call(50, 40, -20, 1.0),
        Call(1, 70, 69, 0.1),
    ):
        check(folder, name, blocks, call)
