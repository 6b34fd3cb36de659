"""How long one call takes on a CUDA device.

In: a call that has run before. Out: its median milliseconds. Not its job: what is called
(`bench.selecting`), the host's part of a call (`bench.ready`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from triton.testing import do_bench, do_bench_cudagraph

LONG_MS = 200.0
"""Calls that take longer are timed three times, others by `do_bench`."""

VERY_LONG_MS = 1000.0
"""Calls that take longer are timed once, and of the peers FA3 alone."""

Clock = Callable[[Callable[[], object]], float]
"""The median milliseconds of a call."""


def median_ms(run: Callable[[], object]) -> float:
    """Median milliseconds on the current CUDA device; the call has run before."""
    first = _once(run)
    if first > VERY_LONG_MS:
        return first
    if first > LONG_MS:
        return statistics.median([first, _once(run), _once(run)])
    return float(do_bench(run, warmup=25, rep=150, return_mode="median"))


def replayed_ms(run: Callable[[], object]) -> float:
    """As `median_ms`, by replaying a CUDA graph: the host, which may be slower, waits."""
    for _ in range(2):  # what a first call leaves to the second is not captured
        run()
    return float(do_bench_cudagraph(run, rep=20, return_mode="median"))


def _once(run: Callable[[], object]) -> float:
    start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))
