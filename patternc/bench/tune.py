"""Measuring tiles, warps and stages for the table in `plan.measured`.

In: programs, candidate schedules, a head size. Out: for each candidate that runs the
costs of a full tile, a partial tile and a query tile, fitted to the times of all the
programs at once. Not its job: choosing (`plan.choose`). Forward kernels on one CUDA
device; each candidate costs a compilation and some tens of milliseconds a program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from triton.testing import do_bench

from patternc.attention import Attention
from patternc.bench.measure import draw
from patternc.bench.record import Shape
from patternc.driver import Trace
from patternc.ir.walk import tables_of
from patternc.plan.choose import SHARED_BYTES, most_stages
from patternc.plan.expand import count_tiles, head_classes, query_tiles
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.measured import Measured, Work
from patternc.plan.tiling import plan

LENGTH = 16384

CANDIDATES = (
    (64, 64, 4),
    (64, 128, 4),
    (128, 64, 4),
    (128, 64, 8),
    (128, 128, 8),
    (64, 32, 4),
)
"""Tiles and warps; each with two and three stages, as shared memory holds."""

STAGES = (2, 3)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """A candidate, the milliseconds of each program, and the greatest error of the fit."""

    measured: Measured
    times: tuple[float, ...]
    error: float

    @property
    def line(self) -> str:
        """The candidate as a line of `plan.measured`."""
        item = self.measured
        numbers = (
            f"{item.columns}, {item.itemsize}, {item.block_q}, {item.block_k}, "
            f"{item.warps}, {item.stages}, {item.full_ns:.3f}, {item.partial_ns:.3f}, "
            f"{item.start_ns:.2f}"
        )
        work = f"Work.{item.work.name}"
        return f'Measured("{item.family}", {work}, {numbers}, "{item.device}"),'


def tune(
    traces: Sequence[Trace], head_dim: int, tell: Callable[[str], None]
) -> tuple[Fit, ...]:
    """Measure every candidate; the fastest stages of each tile and warps.

    Raises `ValueError` for programs whose tiles are not closed forms, fewer than two
    programs, and a device that the rules do not know.
    """
    if len(traces) < 2:
        raise ValueError("expected two programs or more: a fit needs them")
    for trace in traces:
        ready = all(cover.ranges and not cover.order for cover in trace.kernel.covers)
        if not ready or trace.kernel.attention.params:
            raise ValueError(
                f"{trace.attention.name}: expected tiles in closed form, no run-time"
                " parameter and no order"
            )
    family = "sm_" + "".join(map(str, torch.cuda.get_device_capability()))
    if torch.version.hip is not None or family not in SHARED_BYTES:
        raise ValueError(f"devices are {', '.join(SHARED_BYTES)}; got {family}")
    best: dict[tuple[int, int, int], Fit] = {}
    for schedule in candidates(head_dim, family):
        fit = _measure(traces, schedule, head_dim, family, tell)
        if fit is None:
            continue
        key = (schedule.block_q, schedule.block_k, schedule.warps)
        if key not in best or sum(fit.times) < sum(best[key].times):
            best[key] = fit
    return tuple(sorted(best.values(), key=lambda fit: sum(fit.times)))


def candidates(head_dim: int, family: str) -> Iterator[Schedule]:
    """The schedules whose tiles fit into the family's shared memory, 16 bits each."""
    for block_q, block_k, warps in CANDIDATES:
        schedule = Schedule(block_q, block_k, warps)
        try:
            most = most_stages(Work.FORWARD, schedule, head_dim, 2, family)
        except ValueError:
            continue
        for stages in STAGES:
            if stages <= most:
                yield replace(schedule, stages=stages)


def _measure(
    traces: Sequence[Trace],
    schedule: Schedule,
    head_dim: int,
    family: str,
    tell: Callable[[str], None],
) -> Fit | None:
    """One candidate on every program; None, and a word, if it does not run."""
    device = torch.device("cuda")
    times, work = [], []
    for trace in traces:
        kernel = plan(trace.kernel.attention, schedule)
        attention = kernel.attention
        shape = Shape(1, attention.heads, attention.kv_heads, LENGTH, head_dim)
        q, k, v = draw(shape, device)
        call = Attention(replace(trace, kernel=kernel), "triton")
        try:
            with torch.no_grad():
                ms = do_bench(
                    lambda call=call, x=(q, k, v): call(*x),
                    warmup=10,
                    rep=60,
                    return_mode="median",
                )
        # A candidate that does not compile is a finding, not the end of the run.
        except Exception as error:  # noqa: BLE001
            tell(f"{schedule}: {type(error).__name__}: {error}"[:200])
            return None
        times.append(float(ms))
        work.append(tile_work(kernel, LENGTH))
    costs, off = fit_costs(np.array(work), 1e6 * np.array(times))
    full_ns, partial_ns, start_ns = costs.tolist()
    item = Measured(
        family,
        Work.FORWARD,
        head_dim,
        2,
        schedule.block_q,
        schedule.block_k,
        schedule.warps,
        schedule.stages or 1,
        full_ns,
        partial_ns,
        start_ns,
        torch.cuda.get_device_name(),
    )
    found = Fit(item, tuple(times), off)
    shown = ", ".join(f"{ms:.3f}" for ms in times)
    tell(f"{schedule}: {shown} ms, fitted within {off:.1%}")
    return found


def tile_work(kernel: Kernel, length: int) -> tuple[float, float, float]:
    """Full tiles, partial tiles and query tiles of all heads.

    Raises `LookupError` if the tiles depend on an input.
    """
    full = partial = rows = 0
    for cover in kernel.covers:
        if tables_of(cover.mask):
            raise LookupError("the tiles depend on an input")
        for heads in head_classes(cover):
            found = count_tiles(kernel, heads[0], length, length, 0, {})
            full += (found.visited - found.partial) * len(heads)
            partial += found.partial * len(heads)
            rows += len(query_tiles(kernel.schedule, length, 0)) * len(heads)
    return full, partial, rows


def fit_costs(work: Floats, times: Floats) -> tuple[Floats, float]:
    """The cost of a full, a partial and a query tile, and the greatest relative error.

    `work` [programs, 3] times the costs is `times` [programs], by least squares of the
    relative errors. A partial tile is never cheaper than a full one and no cost is
    negative: where the plain fit says so, the two kinds share a cost, and then a query
    tile costs nothing.
    """
    forms = (
        np.eye(3),
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        np.array([[1.0], [1.0], [0.0]]),
    )
    scaled = work / times[:, None]
    costs = np.zeros(3)
    for form in forms:
        if form.shape[1] > len(times):
            continue
        found = np.linalg.lstsq(scaled @ form, np.ones(len(times)), rcond=None)[0]
        costs = form @ found
        if (costs >= 0).all() and costs[1] >= costs[0]:
            break
    return costs, float(np.abs(scaled @ costs - 1).max())
