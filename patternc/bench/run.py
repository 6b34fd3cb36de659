"""The performance suite, in parts.

In: which parts, rows and head sizes. Out: records, handed over as they come so that a
run that is cut off leaves what it measured. Not its job: one measurement
(`bench.measure`, `bench.ready`), the report (`bench.report`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import triton

from patternc.bench.measure import configure, measure
from patternc.bench.ready import get_ready
from patternc.bench.record import (
    BACKWARD,
    FORWARD,
    OURS,
    Ready,
    Records,
    Result,
    Shape,
)
from patternc.bench.suite import Row, row_named

PARTS = ("forward", "backward", "shapes", "ready")
HEADS, LENGTH = 32, 16384
HEAD_DIMS = (128, 64)

LONG = (1024, 4096, 16384, 65536, 262144, 1048576)
"""Lengths of the row whose cost for each live tile must stay flat; as many tokens in
each call, by batch and by heads, but for the last, which is twice as many."""

SHORT = (512, 1024, 2048, 4096)
GROUPED = ("causal", "window_1024")
READY = ("causal", "window_1024", "documents_8_causal", "s2_64_16_16", "sliding_tile")


def machine() -> str:
    """The device and the versions that its times depend on."""
    name = torch.cuda.get_device_name()
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return (
        f"{name} (compute capability {capability}); "
        f"torch {torch.__version__}, triton {triton.__version__}"
    )


def run_suite(
    parts: Sequence[str],
    rows: Sequence[Row],
    head_dims: Sequence[int],
    keep: Callable[[Records], None],
    tell: Callable[[str], None],
) -> Records:
    """Measure on the current CUDA device; `keep` gets all that is there so far.

    `tell` hears of each measurement, in one line.
    """
    configure()
    found = Records(machine())
    for item in _measurements(parts, rows, head_dims):
        if isinstance(item, Result):
            found = replace(found, results=(*found.results, item))
        else:
            found = replace(found, ready=(*found.ready, item))
        tell(_line(item))
        keep(found)
    return found


def _measurements(
    parts: Sequence[str], rows: Sequence[Row], head_dims: Sequence[int]
) -> Iterator[Result | Ready]:
    for head_dim in head_dims:
        for direction in (FORWARD, BACKWARD):
            if direction in parts:
                for row in rows:
                    shape = shape_of(row, head_dim)
                    yield measure(direction, row, shape, direction)
    if "shapes" in parts:
        yield from _shapes()
    if "ready" in parts:
        for name in READY:
            if any(row.name == name for row in rows):
                yield get_ready(row_named(name), shape_of(row_named(name), 128))


def shape_of(row: Row, head_dim: int) -> Shape:
    """The shape of a row in the main tables."""
    return Shape(1, HEADS, HEADS // row.share, LENGTH, head_dim)


def _shapes() -> Iterator[Result]:
    """Grouped heads, short sequences, and one pattern from 1K to 1M."""
    for name in GROUPED:
        shape = Shape(1, HEADS, HEADS // 4, LENGTH, 128)
        for direction in (FORWARD, BACKWARD):
            yield measure("grouped", row_named(name), shape, direction)
    for length in LONG:
        batch = max(1, LENGTH // length)
        heads = min(HEADS, max(1, HEADS * LENGTH // length))
        shape = Shape(batch, heads, heads, length, 128)
        yield measure("long", row_named("window_1024"), shape, systems=(OURS,))
    for name in ("causal", "dense"):
        for length in SHORT:
            shape = Shape(1, HEADS, HEADS, length, 128)
            yield measure("short", row_named(name), shape)


def _line(item: Result | Ready) -> str:
    if isinstance(item, Ready):
        return (
            f"ready {item.row}: cold {item.cold_s} s, warm {item.warm_s} s{item.note}"
        )
    times = ", ".join(
        f"{timing.system} {timing.note if timing.ms is None else f'{timing.ms:.3f}'}"
        for timing in item.timings
    )
    return f"{item.part} {item.row} {item.direction} {item.shape.title}: {times}"
