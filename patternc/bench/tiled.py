"""The tiled backend beside dense SDPA and compiled FlexAttention, on the CPU.

In: the size of a call. Out: median milliseconds of each, turn by turn in one process.
Not its job: the suite, which needs a CUDA device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from patternc.attention import Attention
from patternc.driver import trace_source
from patternc.source import Source

SINK, RECENT = 64, 256
LEAST_DENSE, LEAST_FLEX = 3.0, 1.0
"""What is promised, with two cores: dense SDPA's and FlexAttention's time over ours."""


@dataclass(frozen=True, slots=True)
class Tiled:
    """Median milliseconds of a forward pass, float32, and how far results differ."""

    ours: float
    dense: float
    flex: float
    distance: float
    threads: int

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        fast = self.dense / self.ours >= LEAST_DENSE
        return fast and self.flex / self.ours >= LEAST_FLEX


def compare(
    *, heads: int = 8, length: int = 4096, head_dim: int = 64, rounds: int = 7
) -> Tiled:
    """Time streaming(64, 256), batch 1. FlexAttention's compilation is not counted."""
    text = f"attention stream {{ heads {heads} mask streaming({SINK}, {RECENT}) }}"
    attention = Attention(trace_source(Source("stream.pat", text)), "tiled")
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn((3, 1, heads, length, head_dim), generator=generator)
    blocks = create_block_mask(_mask, None, None, length, length, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)
    calls: tuple[Callable[[], Tensor], ...] = (
        lambda: attention(q, k, v),
        lambda: scaled_dot_product_attention(q, k, v),
        lambda: compiled(q, k, v, block_mask=blocks),
    )
    with torch.no_grad():
        first = [call() for call in calls]
        times = [[_milliseconds(call) for call in calls] for _ in range(rounds)]
    distance = float((first[2] - first[0]).norm() / first[0].norm())
    ours, dense, flex = map(statistics.median, zip(*times, strict=True))
    return Tiled(ours, dense, flex, distance, torch.get_num_threads())


def _mask(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (k <= q) & ((k < SINK) | (q - k < RECENT))


def _milliseconds(call: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
