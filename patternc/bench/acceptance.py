"""Which of the figures that the project promises the records show.

In: records of the suite. Out: one `Check` for each figure. Not its job: measuring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from patternc.bench.record import BACKWARD, FA3, FLEX, FORWARD, OURS, Records, Result

LEAST_MEAN = {FORWARD: 1.15, BACKWARD: 1.0}
LEAST_RATIO = 0.95
LEAST = {
    "dilated_4_in_4096": 2.5,
    "causal": 1.2,
    "window_1024": 1.2,
    "duo_2_of_8": 1.2,
}
"""Forward, against FlexAttention."""

LEAST_SELECTED = {
    ("vertical_slash", 131072): 4.0,
    ("vertical_slash", 1048576): 25.0,
    ("xattention_10", 131072): 4.0,
}
"""Dense FA3 over choice and attention together."""

PLANNED, MOST_PLANNED = ("vertical_slash", 131072), 0.15
"""XAttention's plan has no such bound: its estimate is a sixteenth of all products."""

MOST_SLOWER = 0.05

MOST_UNEVEN = 1.1
"""The dearest live tile over the cheapest, among calls that fill the device."""

FILLS = 16384
MOST_LISTS = 0.02
NOISE = 0.01
MOST_COLD_S, MOST_WARM_S = 5.0, 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, whether it is kept (None: not measured), and the figure."""

    promise: str
    holds: bool | None
    figure: str


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """None of nothing."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else None


def check(records: Records) -> tuple[Check, ...]:
    """Every promise, in the order of the report."""
    found = (*_ratios(records), *_flat(records), *_ready(records))
    return (*found, *_selecting(records))


def table(records: Records, direction: str, head_dim: int) -> tuple[Result, ...]:
    """The rows of one of the main tables."""
    return tuple(
        r
        for r in records.results
        if r.part == direction and r.shape.head_dim == head_dim
    )


def head_dims(records: Records) -> list[int]:
    """Those of the main tables, the largest first."""
    parts = (FORWARD, BACKWARD)
    found = {r.shape.head_dim for r in records.results if r.part in parts}
    return sorted(found, reverse=True)


def _ratios(records: Records) -> Iterator[Check]:
    for direction, least in LEAST_MEAN.items():
        for head_dim in head_dims(records):
            rows = table(records, direction, head_dim)
            place = f"{direction} D{head_dim}"
            ratios = {row.row: row.ratio(FLEX) for row in rows}
            missing = [name for name, ratio in ratios.items() if ratio is None]
            known = {name: r for name, r in ratios.items() if r is not None}
            mean = geometric_mean(known.values())
            # A row without a ratio can't be left out of a mean that is promised.
            verdict = None if mean is None or missing else mean >= least
            figure = "not measured" if mean is None else f"{mean:.2f}"
            figure += f"; without {', '.join(missing)}" if missing else ""
            yield Check(f"{place}: geometric mean >= {least}", verdict, figure)
            if known:
                worst = min(known, key=lambda name: known[name])
                figure = f"{worst} {known[worst]:.2f}"
                low = known[worst] < LEAST_RATIO
                verdict = False if low else (None if missing else True)
                promise = f"{place}: every row >= {LEAST_RATIO}"
                yield Check(promise, verdict, figure)
            if direction == FORWARD:
                for name, bound in LEAST.items():
                    if name in ratios:
                        yield _least(f"{place}: {name} >= {bound}", known, name, bound)


def _least(promise: str, known: dict[str, float], name: str, bound: float) -> Check:
    if name not in known:
        return Check(promise, None, "not measured")
    return Check(promise, known[name] >= bound, f"{known[name]:.2f}")


def _selecting(records: Records) -> Iterator[Check]:
    for item in records.selected:
        place = f"{item.choice} at {item.shape.length}"
        ratio = item.ratio(FA3)
        name = item.choice.removesuffix("_near")
        bound = LEAST_SELECTED.get((name, item.shape.length))
        if bound is not None:
            figure = "not measured" if ratio is None else f"{ratio:.2f}"
            verdict = None if ratio is None else ratio >= bound
            yield Check(f"{place}: FA3 over both >= {bound}", verdict, figure)
        if (name, item.shape.length) == PLANNED and item.together_ms:
            share = item.plan_ms / item.together_ms
            promise = f"{place}: the plan takes at most {MOST_PLANNED:.0%}"
            yield Check(promise, share <= MOST_PLANNED, f"{share:.1%}")
        if item.choice.endswith("_or_dense") and ratio is not None:
            promise = f"{place}: at most {MOST_SLOWER:.0%} slower than dense"
            slower = 1 / ratio - 1
            yield Check(promise, slower <= MOST_SLOWER, f"{slower:.1%}")
        if item.choice.endswith("_or_dense") and item.dense_ms:
            promise = f"{place}: at most {MOST_SLOWER:.0%} slower than our own dense"
            slower = item.together_ms / item.dense_ms - 1
            yield Check(promise, slower <= MOST_SLOWER, f"{slower:.1%}")


def tile_cost(result: Result) -> float | None:
    """Picoseconds for each query and key in a live tile."""
    ms, shape = result.ms(OURS), result.shape
    if ms is None:
        return None
    pairs = result.tile_density * shape.length**2 * shape.heads * shape.batch
    return 1e9 * ms / pairs


def _flat(records: Records) -> Iterator[Check]:
    rows = [r for r in records.results if r.part == "long" and r.shape.length >= FILLS]
    costs = {r.shape.length: cost for r in rows if (cost := tile_cost(r)) is not None}
    if len(costs) < 2:
        return
    uneven = max(costs.values()) / min(costs.values())
    yield Check(
        f"cost of a live tile from {min(costs)} to {max(costs)}: within {MOST_UNEVEN}",
        uneven <= MOST_UNEVEN if len(costs) == len(rows) else None,
        f"{uneven:.3f}",
    )


def _ready(records: Records) -> Iterator[Check]:
    for item in records.ready:
        if item.cold_s is not None:
            promise = f"{item.row}: first result, cold, in {MOST_COLD_S} s"
            yield Check(promise, item.cold_s < MOST_COLD_S, f"{item.cold_s:.2f} s")
        if item.warm_s is not None:
            promise = f"{item.row}: first result, warm, in {MOST_WARM_S} s"
            yield Check(promise, item.warm_s < MOST_WARM_S, f"{item.warm_s:.2f} s")
        if item.call_ms is None or not item.kernel_ms:
            continue
        if item.row.startswith("documents"):
            share = item.call_ms / item.kernel_ms - 1
            promise = f"{item.row}: getting ready under {MOST_LISTS:.0%} of the kernel"
            # The two are timed apart: what is less than a hundredth is noise around 0.
            shown = f"{share:.1%}" if share >= NOISE else f"< {NOISE:.0%}"
            yield Check(promise, share < MOST_LISTS, shown)
        elif item.row in ("causal", "window_1024"):
            figure = f"{item.launches} launches, {item.bytes} bytes"
            clean = item.launches == 0 and item.bytes == 0
            promise = f"{item.row}: nothing on the device before the kernel"
            yield Check(promise, clean, figure)
