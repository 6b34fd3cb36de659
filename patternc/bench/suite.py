"""The rows of the performance suite.

In: the size of a call. Out: for each row the `.pat` program, its inputs and, written by
hand, the same mask as a FlexAttention `mask_mod`. Not its job: running them
(`bench.measure`).

`shrink` divides all lengths inside a pattern: 1 in the suite; tests take small calls
of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

MaskMod = Callable[[Any, Any, Any, Any], Any]
"""FlexAttention's `mask_mod(b, h, q_idx, kv_idx) -> bool tensor`."""

DOCUMENTS = (7, 13, 11, 19, 17, 23, 5, 29)
"""Shares of the sequence that the eight documents have: none ends with a tile."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a row is made for: query and key/value heads, the length, `shrink`."""

    heads: int
    kv_heads: int
    length: int
    shrink: int = 1

    def cut(self, width: int) -> int:
        """A length inside a pattern, divided by `shrink`."""
        return max(1, width // self.shrink)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A row at one size: the clauses of its program, and its mask_mod.

    `flex` is None for dense attention. `inputs` [n] are those of the attention and,
    where the mask_mod reads some, the same tensors.
    """

    clauses: tuple[str, ...]
    flex: MaskMod | None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    before: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One pattern of the suite.

    `sdpa` says whether SDPA computes the same: "dense", "causal" or "" (it can't
    without an n_q x n_k mask). `per_head` says whether the mask depends on the head:
    FlexAttention then needs block masks for all of them. `share` is the number of
    query heads to a key/value head where the pattern asks for that.
    """

    name: str
    make: Callable[[Sizes, torch.device], Pattern]
    sdpa: str = ""
    per_head: bool = False
    share: int = 1

    def program(self, sizes: Sizes, pattern: Pattern) -> str:
        """The row as a `.pat` program."""
        lines = [f"heads {sizes.heads} kv {sizes.kv_heads}", *pattern.clauses]
        body = "".join(f"    {line}\n" for line in lines)
        return f"{pattern.before}attention {self.name} {{\n{body}}}\n"


def _dense(_sizes: Sizes, _device: torch.device) -> Pattern:
    return Pattern(("mask full",), None)


def _causal(_sizes: Sizes, _device: torch.device) -> Pattern:
    return Pattern(("mask causal",), lambda b, h, q, k: k <= q)


def _window(sizes: Sizes, _device: torch.device) -> Pattern:
    w = sizes.cut(1024)
    return Pattern((f"mask window({w})",), lambda b, h, q, k: (k <= q) & (q - k < w))


def _sink_window(sizes: Sizes, _device: torch.device) -> Pattern:
    sink, w = sizes.cut(4), sizes.cut(1024)
    return Pattern(
        (f"mask streaming({sink}, {w})",),
        lambda b, h, q, k: (k <= q) & ((k < sink) | (q - k < w)),
    )


def _prefix(sizes: Sizes, _device: torch.device) -> Pattern:
    p = sizes.cut(2048)
    return Pattern((f"mask prefix_lm({p})",), lambda b, h, q, k: (k <= q) | (k < p))


def _documents(sizes: Sizes, device: torch.device) -> Pattern:
    ends = [sizes.length * part // sum(DOCUMENTS) for part in accumulate(DOCUMENTS)]
    positions = torch.arange(sizes.length, device=device)
    edges = torch.tensor(ends, device=device)
    doc = torch.searchsorted(edges, positions, right=True).to(torch.int32)
    return Pattern(
        ("input doc[k] : int sorted", "mask causal & doc[q] == doc[k]"),
        lambda b, h, q, k: (k <= q) & (doc[q] == doc[k]),
        {"doc": doc},
    )


def _s2(sizes: Sizes, _device: torch.device) -> Pattern:
    block = sizes.cut(64)
    return Pattern(
        (f"mask local_strided({block}, 16, 16)",),
        lambda b, h, q, k: (
            (k <= q)
            & ((q // block - k // block < 16) | ((k // block + h + 1) % 16 == 0))
        ),
    )


def _dilated(sizes: Sizes, _device: torch.device) -> Pattern:
    w = sizes.cut(4096)
    return Pattern(
        (f"mask dilated({w}, 4)",),
        lambda b, h, q, k: (k <= q) & (q - k < w) & ((q - k) % 4 == 0),
    )


def _blocks(sizes: Sizes, _device: torch.device) -> Pattern:
    width = sizes.cut(512)
    return Pattern(
        (f"mask block_diagonal({width})",), lambda b, h, q, k: q // width == k // width
    )


def _longformer(sizes: Sizes, _device: torch.device) -> Pattern:
    """An `attention_window` of 512 is 256 on each side."""
    w, n = sizes.cut(256), sizes.cut(64)
    return Pattern(
        (f"mask longformer({w}, {n})",),
        lambda b, h, q, k: ((q - k).abs() <= w) | (q < n) | (k < n),
    )


def _sliding_tile(sizes: Sizes, _device: torch.device) -> Pattern:
    """16 frames, tiles of 2 x side/4 x side/4 tokens, 3 x 3 x 3 tiles around.

    Raises `ValueError` for a length that is not 16 frames of a square of 4 by 4 tiles.
    """
    side = math.isqrt(sizes.length // 16)
    if 16 * side * side != sizes.length or side % 4:
        raise ValueError(f"sliding_tile: no square video has {sizes.length} tokens")
    tile = side // 4

    def near(q: Any, k: Any, count: int) -> Any:
        """Within a window of 3 tiles, pushed inwards at the ends."""
        return (q.clamp(1, count - 2) - k).abs() <= 1

    def flex(_b: Any, _h: Any, q: Any, k: Any) -> Any:
        frames = near(q // (2 * side * side), k // (2 * side * side), 8)
        rows = near(q // side % side // tile, k // side % side // tile, 4)
        return frames & rows & near(q % side // tile, k % side // tile, 4)

    return Pattern(
        (
            "layout clip",
            f"mask sliding_tile(16, {side}, {side}, 2, {tile}, {tile}, 3, 3, 3)",
            f"order video by tile(f = 2, y = {tile}, x = {tile})",
        ),
        flex,
        before=f"layout clip = video[f = 16, y = {side}, x = {side}]\n",
    )


def _duo(sizes: Sizes, _device: torch.device) -> Pattern:
    """A quarter of the key/value heads is causal."""
    dense = max(1, sizes.kv_heads // 4)
    share = sizes.heads // sizes.kv_heads
    sink, w = sizes.cut(64), sizes.cut(256)
    return Pattern(
        (
            f"mask causal for g in range(0, {dense})",
            f"mask streaming({sink}, {w}) otherwise",
        ),
        lambda b, h, q, k: (k <= q) & ((h // share < dense) | (k < sink) | (q - k < w)),
    )


ROWS: tuple[Row, ...] = (
    Row("dense", _dense, "dense"),
    Row("causal", _causal, "causal"),
    Row("window_1024", _window),
    Row("sink_4_window_1024", _sink_window),
    Row("prefix_2048", _prefix),
    Row("documents_8_causal", _documents),
    Row("s2_64_16_16", _s2, per_head=True),
    Row("dilated_4_in_4096", _dilated),
    Row("block_diagonal_512", _blocks),
    Row("longformer_512_64", _longformer),
    Row("sliding_tile", _sliding_tile),
    Row("duo_2_of_8", _duo, per_head=True, share=4),
)
"""In the order of the report."""


def row_named(name: str) -> Row:
    """Raises `ValueError` for an unknown name."""
    for row in ROWS:
        if row.name == name:
            return row
    raise ValueError(f"rows are {', '.join(row.name for row in ROWS)}; got {name}")
