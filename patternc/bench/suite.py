"""The rows of the performance suite.

In: nothing. Out: for each row the `.pat` program and, written by hand, the same mask as
a FlexAttention `mask_mod`. Not its job: running them (`bench.measure`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MaskMod = Callable[[Any, Any, Any, Any], Any]
"""FlexAttention's `mask_mod(b, h, q_idx, kv_idx) -> bool tensor`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pattern of the suite.

    `mask` is the body of the program's mask line. `flex` is None for dense attention;
    `sdpa` says whether SDPA computes the same: "dense", "causal" or "" (it can't
    without an n_q x n_k mask). `per_head` says whether the mask depends on the head:
    FlexAttention then needs block masks for all of them.
    """

    name: str
    mask: str
    flex: MaskMod | None
    sdpa: str = ""
    per_head: bool = False

    def program(self, heads: int, kv_heads: int) -> str:
        """The row as a `.pat` program."""
        return (
            "pattern strided(local, vert) = window(local) | (k + h + 1) % vert == 0\n"
            f"attention {self.name} {{\n"
            f"    heads {heads} kv {kv_heads}\n"
            f"    mask  {self.mask}\n"
            "}\n"
        )


def _causal(_b: Any, _h: Any, q: Any, k: Any) -> Any:
    return k <= q


def _window(_b: Any, _h: Any, q: Any, k: Any) -> Any:
    return (k <= q) & (q - k < 1024)


def _sink_window(_b: Any, _h: Any, q: Any, k: Any) -> Any:
    return (k <= q) & ((k < 4) | (q - k < 1024))


def _s2(_b: Any, h: Any, q: Any, k: Any) -> Any:
    local = q // 64 - k // 64 < 16
    return (k <= q) & (local | ((k // 64 + h + 1) % 16 == 0))


FORWARD: tuple[Row, ...] = (
    Row("dense", "full", None, "dense"),
    Row("causal", "causal", _causal, "causal"),
    Row("window_1024", "window(1024)", _window),
    Row("sink_4_window_1024", "streaming(4, 1024)", _sink_window),
    Row(
        "s2_64_16_16", "causal & strided(16, 16)[q // 64, k // 64]", _s2, per_head=True
    ),
)
"""Forward rows: B1 H32 D128 N16384 bf16 unless the report says otherwise."""

LONG = Row("sink_4_window_1024", "streaming(4, 1024)", _sink_window)
"""The row that must run at a million tokens."""
