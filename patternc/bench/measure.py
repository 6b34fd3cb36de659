"""Timing patternc and its peers on one CUDA device.

In: a row of the suite and a shape. Out: medians in milliseconds, and the relative
distance of each peer's result from ours. Not its job: what is written about them
(`bench.report`). All systems of a row run in one process on the same tensors; what one
of them can't do is a note in the result, and the rest goes on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
import torch._functorch.config
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from triton.testing import do_bench

from patternc.analysis.prove import mean_density
from patternc.backends.hopper.route import chosen_route
from patternc.bench.peers import Absent, Function, Site
from patternc.bench.record import (
    BACKWARD,
    FA3,
    FORWARD,
    OURS,
    PEERS,
    Result,
    Shape,
    Timing,
)
from patternc.bench.suite import Row, Sizes
from patternc.plan.expand import count_tiles, head_classes
from patternc.plan.kernel import Kernel, Schedule

WARMUP_MS, REPEAT_MS = 25, 150

MOST_COUNTED = 1 << 15
"""Lengths up to this have their pairs counted by the mask_mod, block by block."""

CUDA = torch.device("cuda")

Tensors = tuple[Tensor, ...]
"""A result, or the gradients of q, k and v."""


def configure() -> None:
    """What torch must know once.

    Buffers given away to the backward pass would forbid to run it again, which is how
    it is timed.
    """
    torch._functorch.config.donated_buffer = False


def draw(shape: Shape, device: torch.device, gradients: bool = False) -> Tensors:
    """Seeded normal q, k and v, and with `gradients` one for the output."""
    generator = torch.Generator(device).manual_seed(0)
    dtype = getattr(torch, shape.dtype)
    counts = [shape.heads, shape.kv_heads, shape.kv_heads]
    counts += [shape.heads] if gradients else []
    drawn = []
    for heads in counts:
        size = (shape.batch, heads, shape.length, shape.head_dim)
        drawn.append(torch.randn(size, generator=generator, device=device, dtype=dtype))
    for tensor in drawn[:3]:
        tensor.requires_grad_(gradients)
    return tuple(drawn)


def measure(
    part: str,
    row: Row,
    shape: Shape,
    direction: str = FORWARD,
    systems: Sequence[str] = (OURS, *PEERS),
    schedule: Schedule | None = None,
    device: torch.device = CUDA,
    shrink: int = 1,
) -> Result:
    """Time the systems on fresh random tensors; see `Sizes` for `shrink`."""
    sizes = replace(sizes_of(shape), shrink=shrink)
    site = Site.of(row, sizes, device, schedule)
    tensors = draw(shape, device, direction == BACKWARD)
    ours: Tensors | None = None
    timings = []
    for system in systems:
        found, timing = _time(site, system, tensors, direction)
        if system == OURS:
            ours = found
        elif found is not None and ours is not None:
            timing = replace(timing, distance=distance(found, ours))
        timings.append(timing)
    kernel = site.trace().kernel
    if ours is not None and site.backend == "hopper" and direction == FORWARD:
        kernel = that_ran(kernel, launched(_call(site.prepare(OURS), tensors, FORWARD)))
    return _result(part, site, shape, direction, tuple(timings), kernel)


def launched(run: Callable[[], object]) -> set[str]:
    """The names of the kernels that a call launches on a CUDA device."""
    run()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as log:
        run()
        torch.cuda.synchronize()
    return {item.key for item in log.key_averages()}


def that_ran(kernel: Kernel, names: Collection[str]) -> Kernel:
    """The attention on the tiles that it ran on, by the names of what was launched."""
    route = chosen_route(kernel)
    if route is None or not any(name.startswith("hopper_kernel") for name in names):
        return kernel
    return route.kernel


def sizes_of(shape: Shape) -> Sizes:
    """What a row is made for."""
    return Sizes(shape.heads, shape.kv_heads, shape.length)


def distance(found: Tensors, ours: Tensors) -> float:
    """The greatest ||found - ours|| / ||ours||."""
    return max(
        float((x.float() - y.float()).norm() / y.float().norm())
        for x, y in zip(found, ours, strict=True)
    )


def _time(
    site: Site, system: str, tensors: Tensors, direction: str
) -> tuple[Tensors | None, Timing]:
    """What one system found, and its median time."""
    gc.collect()
    torch.cuda.empty_cache()
    # What earlier rows compiled would be looked through at each call of this one.
    torch.compiler.reset()
    start = time.perf_counter()
    try:
        if system == FA3 and direction == BACKWARD:
            raise Absent("the package computes no backward pass")
        run = _call(site.prepare(system), tensors, direction)
        found = run()
        torch.cuda.synchronize()
        ready = (time.perf_counter() - start) * 1e3
        ms = do_bench(run, warmup=WARMUP_MS, rep=REPEAT_MS, return_mode="median")
    except Absent as reason:
        return None, Timing(system, None, note=str(reason))
    # One system's failure is a finding, not the end of the run.
    except Exception as error:  # noqa: BLE001
        note = " ".join(f"{type(error).__name__}: {error}".split())
        return None, Timing(system, None, note=note[:240])
    return found, Timing(system, float(ms), ready_ms=ready)


def _call(
    attend: Function, tensors: Tensors, direction: str
) -> Callable[[], tuple[Tensor, ...]]:
    """What is timed. The backward pass runs again and again on one forward pass."""
    q, k, v = tensors[:3]
    if direction == FORWARD:

        def forward() -> Tensors:
            with torch.no_grad():
                return (attend(q, k, v),)

        return forward
    output = attend(q, k, v)
    if not output.requires_grad:
        raise Absent("it has no backward pass")
    return lambda: torch.autograd.grad(output, (q, k, v), tensors[3], retain_graph=True)


def _result(
    part: str,
    site: Site,
    shape: Shape,
    direction: str,
    timings: tuple[Timing, ...],
    kernel: Kernel,
) -> Result:
    schedule = kernel.schedule
    return Result(
        part,
        site.row.name,
        direction,
        shape,
        schedule.block_q,
        schedule.block_k,
        density(site, kernel),
        tile_density(site, kernel),
        timings,
    )


def density(site: Site, kernel: Kernel) -> float:
    """The share of visible pairs, mean over the heads; exact."""
    flex, sizes = site.pattern.flex, site.sizes
    if flex is None:
        return 1.0
    if sizes.length > MOST_COUNTED:
        heads = tuple(range(sizes.heads))
        return float(mean_density(kernel.attention, heads, sizes.length, {}))
    keys = torch.arange(sizes.length, device=site.device)
    batch = torch.zeros((), dtype=torch.int64, device=site.device)
    heads = tuple(range(sizes.heads if site.row.per_head else 1))
    seen = torch.zeros((), dtype=torch.int64, device=site.device)
    for head in heads:
        at = torch.full((), head, device=site.device)
        for rows in torch.split(keys[:, None], 1024):
            seen += flex(batch, at, rows, keys).sum()
    return int(seen) / (len(heads) * sizes.length**2)


def tile_density(site: Site, kernel: Kernel) -> float:
    """The share of tiles that are visited, mean over the heads."""
    n = site.sizes.length
    tables = {name: item.cpu().numpy() for name, item in site.pattern.inputs.items()}
    visited = total = 0
    for cover in kernel.covers:
        for same in head_classes(cover):
            count = count_tiles(kernel, same[0], n, n, 0, {}, tables)
            visited += count.visited * len(same)
            total += count.total * len(same)
    return visited / total
