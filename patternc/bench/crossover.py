"""What choosing keys takes, fitted to what `patternc bench --select` measured.

In: records of choices, the line of times that was there before. Out: a line for
`plan.measured.CHOOSING`. Not its job: measuring (`bench.selecting`), what is counted
(`plan.choosing_work`), when a dense mask is taken (`plan.cheaper`).

A plan's time is fitted as a sum: so much for its launches, so much for each entry that
is estimated or ranked, no part below 0, by least squares of relative errors. Attention
and dense attention are one rate each, the median. What no choice at hand has, keeps the
time that it had.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patternc.bench.record import Selected
from patternc.bench.selecting import choice_named
from patternc.plan.choosing_work import work_of
from patternc.plan.prices import COLUMNS, Choosing, Work

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """The times, and the greatest relative error of a plan's and an attention's."""

    times: Choosing
    error: float

    @property
    def line(self) -> str:
        """As a line of `plan.measured`."""
        item = self.times
        numbers = (
            f"{item.launches_ms:.2f}, {item.dense_ps:.3g}, {item.scored_ps:.3g},"
            f" {item.ranked_ps:.3g}, {item.alone_ps:.3g}, {item.line_ps:.3g},"
            f" {item.block_ps:.3g}, {item.tile_ps:.3g}"
        )
        return f'Choosing("{item.family}", {numbers}, "{item.device}"),'


def fit(
    found: Iterable[Selected], before: Choosing, family: str, device: str
) -> Fit | None:
    """Times of one device from its records; None if none of them can be used.

    Records count whose choice is known by name, of 128 columns and 16 bits; also of
    calls that are dense without a plan, as plans are timed there, too.
    """
    rows = [(one, _work(one)) for one in found if _is_usable(one)]
    if not rows:
        return None
    counts = np.array([(1e9, w.scored, w.ranked, w.alone) for _, w in rows])
    planned = np.array([1e9 * one.plan_ms for one, _ in rows])
    old = (before.launches_ms, before.scored_ps, before.ranked_ps, before.alone_ps)
    launches, scored, ranked, alone = fit_parts(counts, planned, old)

    def rate(ms: Callable[[Selected], float], pairs: Callable[[Work], float]) -> float:
        """The median; 0 where there is no such pair."""
        rates = [1e9 * ms(one) / pairs(w) for one, w in rows if ms(one) and pairs(w)]
        return statistics.median(rates) if rates else 0.0

    dense = rate(lambda one: one.dense_ms, lambda w: w.dense) or before.dense_ps
    times = Choosing(
        family,
        launches,
        dense,
        scored,
        ranked,
        alone,
        rate(_attend, lambda w: _alone(w, "lines")) or before.line_ps,
        rate(_attend, lambda w: _alone(w, "blocks")) or before.block_ps,
        # Tiles that are visited for single pairs are not counted: as dense ones were.
        before.tile_ps * dense / before.dense_ps,
        device,
    )
    return Fit(times, _error(times, rows))


def fit_parts(counts: Floats, times: Floats, old: Sequence[float]) -> list[float]:
    """Non-negative factors of the columns of `counts` that sum up to `times`.

    A column without a count keeps its factor of `old`.
    """
    used = [at for at in range(counts.shape[1]) if counts[:, at].any()]
    factors = [0.0 if at in used else value for at, value in enumerate(old)]
    scaled = counts / times[:, None]
    while used:
        # Columns differ by many orders of magnitude.
        size = scaled[:, used].max(axis=0)
        best, *_ = np.linalg.lstsq(scaled[:, used] / size, np.ones(len(times)))
        least = int(np.argmin(best))
        if best[least] >= 0:
            for at, value in zip(used, best / size, strict=True):
                factors[at] = float(value)
            break
        del used[least]
    return factors


def _is_usable(one: Selected) -> bool:
    has_failed = bool(one.note) and not one.is_dense
    if has_failed or not one.plan_ms or not one.attend_ms:
        return False
    try:
        choice_named(one.choice)
    except ValueError:
        return False
    return one.shape.head_dim == COLUMNS and one.shape.dtype in ("bfloat16", "float16")


def _work(one: Selected) -> Work:
    attention = choice_named(one.choice).attention(one.shape)
    return work_of(attention.kernel.attention, one.shape.length, one.density)


def _attend(one: Selected) -> float:
    return one.attend_ms


def _alone(work: Work, kind: str) -> float:
    """The pairs of one kind, where there is no other."""
    pairs = {"lines": work.lines, "blocks": work.blocks, "tiles": work.tiles}
    own = pairs.pop(kind)
    return 0.0 if any(pairs.values()) else own


def _error(times: Choosing, rows: Sequence[tuple[Selected, Work]]) -> float:
    """The greatest relative error of what is predicted for these records."""
    errors = []
    for one, work in rows:
        planned, attended, _ = work.milliseconds(times, is_short=False)
        errors.append(abs(planned / one.plan_ms - 1))
        errors.append(abs(attended / one.attend_ms - 1))
    return max(errors)
