"""How long a forward pass takes.

In: an attention, a length, a setting. Out: the median time beside dense causal
attention, in milliseconds. Not its job: correctness (`patternc.verify`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from patternc.attention import Attention

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a forward pass runs with; `backend` None means the device's own."""

    backend: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    head_dim: int = 64
    repeat: int = 5


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """The medians of a pattern and of dense causal attention."""

    pattern: float
    dense: float


def time_forward(attention: Attention, n: int, setting: Setting) -> Milliseconds:
    """Time `n` queries on `n` keys, batch 1, seeded normal inputs.

    Raises `ValueError` for an unknown dtype, device or backend, `PatternError` if the
    backend refuses the kernel.
    """
    if setting.backend is not None:
        attention = attention.backend(setting.backend)
    if setting.dtype not in DTYPES:
        raise ValueError(f"dtype {setting.dtype}: expected one of {', '.join(DTYPES)}")
    try:
        device = torch.device(setting.device)
    except RuntimeError:
        raise ValueError(f"device {setting.device}: PyTorch knows none such") from None
    generator = torch.Generator().manual_seed(0)

    def normal(count: int) -> torch.Tensor:
        shape = (1, count, n, setting.head_dim)
        drawn = torch.randn(shape, generator=generator)
        return drawn.to(device, DTYPES[setting.dtype])

    shared = attention.kernel.attention
    q = normal(shared.heads)
    k, v = normal(shared.kv_heads), normal(shared.kv_heads)

    def dense() -> object:
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return Milliseconds(
        _median(lambda: attention(q, k, v), device, setting.repeat),
        _median(dense, device, setting.repeat),
    )


def _median(call: Callable[[], object], device: torch.device, repeat: int) -> float:
    """The median of `repeat` calls, after one that compiles and warms up."""
    call()
    times = []
    for _ in range(repeat):
        _finish(device)
        began = time.perf_counter()
        call()
        _finish(device)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def _finish(device: torch.device) -> None:
    """Wait for what runs on a GPU: calls return before it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
