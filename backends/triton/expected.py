"""How fast a package is expected to be.

In: a planned kernel, head sizes. Out: predicted times, from the table of measured ones.
Not its job: the model and the table (`plan.choose`, `plan.measured`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from patternc.backends.hopper.route import Route
from patternc.ir.walk import tables_of
from patternc.plan.choose import REFERENCE_LENGTH, predict
from patternc.plan.kernel import Kernel
from patternc.plan.measured import HOPPER, MEASURED, Measured, Work
from patternc.runtime.manifest import Expected

_ITEMSIZE = 2


def expected_times(
    kernel: Kernel, route: Route | None, head_dims: Sequence[int], backward: bool
) -> tuple[Expected, ...]:
    """The times of whole calls, for what was measured; the faster of two forward kernels.

    Empty for a program whose run-time parameters have no value, or whose tiles follow
    inputs.
    """
    attention = kernel.attention
    if any(tables_of(cover.mask) for cover in kernel.covers):
        return ()
    values = {x.name: x.default for x in attention.params if x.default is not None}
    if len(values) < len(attention.params):
        return ()
    layout = attention.layout
    length = REFERENCE_LENGTH if layout is None else layout.size
    best: dict[tuple[str, int, str], float] = {}
    for dim in head_dims:
        for own, item in _measured(kernel, route, dim):
            if item.work is Work.FORWARD or backward:
                key = (item.work.value, dim, item.device)
                time = predict(own, item, values)
                best[key] = min(best.get(key, time), time)
    return tuple(
        Expected(work, dim, device, length, round(time, 4))
        for (work, dim, device), time in sorted(best.items())
    )


def _measured(
    kernel: Kernel, route: Route | None, dim: int
) -> Iterator[tuple[Kernel, Measured]]:
    """The rows of the table for a head size, each with the plan on its tiles."""
    schedule = kernel.schedule
    for item in MEASURED:
        is_tile = (item.block_q, item.block_k) == (schedule.block_q, schedule.block_k)
        if is_tile and (item.columns, item.itemsize) == (dim, _ITEMSIZE):
            yield kernel, item
    for item in HOPPER:
        if route is not None and item.columns == dim and dim in route.stages:
            yield route.kernel, item
