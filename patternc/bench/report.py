"""The performance report, `docs/performance.md`.

In: results. Out: Markdown. Not its job: measuring (`bench.measure`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton

from patternc.bench.measure import Result, Shape, measure
from patternc.bench.suite import FORWARD, LONG

SHAPES = (
    Shape(batch=1, heads=32, kv_heads=32, length=16384, head_dim=128),
    Shape(batch=1, heads=32, kv_heads=32, length=16384, head_dim=64),
)
LONG_SHAPE = Shape(batch=1, heads=1, kv_heads=1, length=1 << 20, head_dim=128)
PEERS = ("flex", "sdpa_flash", "sdpa_cudnn")

_INTRODUCTION = """# Performance

Forward times, written by `patternc bench --suite --out docs/performance.md`: run it
again on any CUDA device. All systems of a row run in one process on the same tensors;
times are medians of `triton.testing.do_bench`. A ratio is the peer's time over ours:
above 1 we are faster. TFLOP/s count 4 * D operations for each *visible* pair, or for
each pair of a *live tile*. *Distance* is the greatest ||peer - ours|| / ||ours|| among
the peers: that the same function was timed. FlexAttention is compiled, with default
options and a compiled block mask; SDPA computes only dense and causal attention
without an n_q x n_k mask. *Ready* is the time from source text (for FlexAttention: from
`mask_mod`) to the first result, in seconds, nothing cached but what earlier rows left.
"""


def run_suite() -> str:
    """Measure everything on the current CUDA device and write it down."""
    sections = [_INTRODUCTION, _machine()]
    for shape in SHAPES:
        results = [measure(row, shape) for row in FORWARD]
        sections.append(_table(shape, results))
    sections.append(_long_section(measure(LONG, LONG_SHAPE, peers=False)))
    return "\n".join(sections)


def _machine() -> str:
    name = torch.cuda.get_device_name()
    capability = ".".join(str(part) for part in torch.cuda.get_device_capability())
    return (
        f"Device: {name} (compute capability {capability}); "
        f"torch {torch.__version__}, triton {triton.__version__}.\n"
    )


def _title(shape: Shape) -> str:
    dtype = str(shape.dtype).removeprefix("torch.")
    return (
        f"B{shape.batch} H{shape.heads} kv {shape.kv_heads} D{shape.head_dim} "
        f"N{shape.length} {dtype}"
    )


def _table(shape: Shape, results: Sequence[Result]) -> str:
    header = (
        "| pattern | density | tile density | tile | ms | TFLOP/s | per live tile "
        "| FlexAttention ms | ratio | SDPA flash ms | ratio | SDPA cuDNN ms | ratio "
        "| distance | ready | Flex ready |"
    )
    lines = [f"## {_title(shape)}", "", header, "|---" * 16 + "|"]
    lines += [_line(result) for result in results]
    lines += ["", _means(results), ""]
    notes = [
        f"- {result.row.name}, {timing.system}: {timing.note}"
        for result in results
        for timing in result.timings
        if timing.note
    ]
    return "\n".join(lines + notes)


def _line(result: Result) -> str:
    ours = result.timings[0]
    if ours.ms is None:
        raise ValueError(f"{result.row.name} was not timed")
    rate = result.flops / ours.ms / 1e9
    live = rate * result.tile_density / result.density
    schedule = result.schedule
    cells = [
        result.row.name,
        f"{result.density:.2%}",
        f"{result.tile_density:.2%}",
        f"{schedule.block_q}x{schedule.block_k}",
        f"{ours.ms:.3f}",
        f"{rate:.0f}",
        f"{live:.0f}",
    ]
    distances = [0.0]
    for system in PEERS:
        timing = result.of(system)
        if timing is None or timing.ms is None:
            cells += ["-", "-"]
        else:
            cells += [f"{timing.ms:.3f}", f"{timing.ms / ours.ms:.2f}"]
            distances.append(timing.distance)
    flex = result.of("flex")
    cells += [
        f"{max(distances):.1e}",
        f"{ours.ready_ms / 1e3:.2f}",
        f"{flex.ready_ms / 1e3:.2f}" if flex is not None else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def _means(results: Sequence[Result]) -> str:
    logs = []
    for result in results:
        ours, flex = result.timings[0], result.of("flex")
        if ours.ms is not None and flex is not None and flex.ms is not None:
            logs.append(math.log(flex.ms / ours.ms))
    if not logs:
        return "FlexAttention ran on no row."
    mean = math.exp(sum(logs) / len(logs))
    return f"Geometric mean against FlexAttention over {len(logs)} rows: {mean:.2f}."


def _long_section(result: Result) -> str:
    ours = result.timings[0]
    if ours.ms is None:
        raise ValueError("the long row was not timed")
    rate = result.flops / ours.ms / 1e9
    live = rate * result.tile_density / result.density
    return (
        f"## {_title(result.shape)}\n\n"
        f"{result.row.name}: {ours.ms:.3f} ms, density {result.density:.4%}, "
        f"{rate:.0f} TFLOP/s on visible pairs, {live:.0f} on live tiles; "
        f"{ours.ready_ms / 1e3:.2f} s from source text to the first result, with no "
        "mask, table or list in device memory.\n"
    )
