"""Timing the forward pass of patternc and its peers on one CUDA device.

In: a row of the suite and a shape. Out: medians in milliseconds, and the relative
distance of each peer's result from ours. Not its job: what is written about them
(`bench.report`). All peers of a row run in one process on the same tensors.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from triton.testing import do_bench

from patternc.analysis.prove import mean_density
from patternc.attention import Attention
from patternc.bench.suite import Row
from patternc.driver import trace_source
from patternc.plan.expand import count_tiles
from patternc.plan.kernel import Schedule
from patternc.source import Source

WARMUP_MS, REPEAT_MS = 100, 400

# Every row compiles FlexAttention anew; past the limit torch would run it uncompiled.
torch._dynamo.config.recompile_limit = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a call; every tensor is [batch, heads, length, head_dim]."""

    batch: int
    heads: int
    kv_heads: int
    length: int
    head_dim: int
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Timing:
    """One system on one row: median milliseconds, or why there is none.

    `distance` is ||out - ours|| / ||ours||; `ready_ms` the time before the first
    result, compilation and mask building included.
    """

    system: str
    ms: float | None
    distance: float = 0.0
    ready_ms: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """All systems on one row at one shape."""

    row: Row
    shape: Shape
    schedule: Schedule
    density: float
    tile_density: float
    timings: tuple[Timing, ...]

    @property
    def flops(self) -> float:
        """4 * D for each visible pair."""
        pairs = self.density * self.shape.length**2
        return 4 * pairs * self.shape.head_dim * self.shape.heads * self.shape.batch

    def of(self, system: str) -> Timing | None:
        """The timing of one system."""
        return next((item for item in self.timings if item.system == system), None)


Function = Callable[[], torch.Tensor]
Prepare = Callable[[], Function]
"""What a system does once, before it can be called: compile, build a mask."""


def measure(
    row: Row, shape: Shape, schedule: Schedule | None = None, peers: bool = True
) -> Result:
    """Time patternc, and its peers unless told otherwise, on fresh random tensors."""
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(heads: int) -> torch.Tensor:
        size = (shape.batch, heads, shape.length, shape.head_dim)
        return torch.randn(size, generator=generator, device="cuda", dtype=shape.dtype)

    q, k, v = draw(shape.heads), draw(shape.kv_heads), draw(shape.kv_heads)
    source = Source(f"{row.name}.pat", row.program(shape.heads, shape.kv_heads))

    def patternc() -> Function:
        attention = Attention(trace_source(source, schedule=schedule), "triton")
        return lambda: attention(q, k, v)

    ours, timing = _time("patternc", patternc, None)
    kernel = trace_source(source, schedule=schedule).kernel
    timings = [timing]
    if peers:
        timings += _peers(row, q, k, v, ours)
    heads = tuple(range(shape.heads))
    density = mean_density(kernel.attention, heads, shape.length, {})
    tiles = [count_tiles(kernel, head, shape.length, shape.length) for head in heads]
    visited = sum(tile.visited for tile in tiles) / sum(tile.total for tile in tiles)
    return Result(row, shape, kernel.schedule, float(density), visited, tuple(timings))


def _peers(
    row: Row,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    ours: torch.Tensor | None,
) -> list[Timing]:
    grouped = q.shape[1] != k.shape[1]
    found: list[Timing] = []

    def flex() -> Function:
        attend = torch.compile(flex_attention, dynamic=False)
        if row.flex is None:
            return lambda: attend(q, k, v, enable_gqa=grouped)
        build = torch.compile(create_block_mask)
        heads = q.shape[1] if row.per_head else None
        mask = build(row.flex, None, heads, q.shape[2], k.shape[2], device="cuda")
        return lambda: attend(q, k, v, block_mask=mask, enable_gqa=grouped)

    def sdpa(backend: SDPBackend) -> Prepare:
        def run() -> torch.Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(
                    q, k, v, is_causal=row.sdpa == "causal", enable_gqa=grouped
                )

        return lambda: run

    found.append(_time("flex", flex, ours)[1])
    if row.sdpa:
        flash, cudnn = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION
        found.append(_time("sdpa_flash", sdpa(flash), ours)[1])
        found.append(_time("sdpa_cudnn", sdpa(cudnn), ours)[1])
    return found


def _time(
    system: str, prepare: Prepare, ours: torch.Tensor | None
) -> tuple[torch.Tensor | None, Timing]:
    """Median time of one system; a peer that can't run is a note, not a failure."""
    gc.collect()
    torch.cuda.empty_cache()
    start = time.perf_counter()
    try:
        run = prepare()
        out = run()
        torch.cuda.synchronize()
        ready = (time.perf_counter() - start) * 1e3
        ms = do_bench(run, warmup=WARMUP_MS, rep=REPEAT_MS, return_mode="median")
    except Exception as error:  # a peer's failure is a finding of the benchmark
        if system == "patternc":
            raise
        return None, Timing(system, None, note=f"{type(error).__name__}: {error}"[:200])
    distance = 0.0
    if ours is not None:
        distance = float((out.float() - ours.float()).norm() / ours.float().norm())
    return out, Timing(system, float(ms), distance, ready)
