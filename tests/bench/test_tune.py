"""The candidates of a tuning run, and the fit of their costs."""

from __future__ import annotations

import numpy as np
import pytest

from patternc.bench.tune import candidates, fit_costs, tile_work
from patternc.driver import compile_source
from patternc.plan.choose import SHARED_BYTES, shared_bytes
from patternc.plan.kernel import Schedule
from patternc.plan.measured import Work
from patternc.source import Source

PROGRAMS = ("full", "causal", "window(1024)", "streaming(4, 256)")


def work_of(schedule: Schedule) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    found = []
    for mask in PROGRAMS:
        source = Source("a.pat", f"attention a {{ heads 4 mask {mask} }}")
        found.append(tile_work(compile_source(source, schedule=schedule), 16384))
    return np.array(found, dtype=np.float64)


def test_a_fit_finds_the_costs_that_made_the_times() -> None:
    work = work_of(Schedule())
    assert work[1].tolist() == [4 * 256 * 255 / 2, 4 * 256, 4 * 256]
    wanted = np.array([4.0, 5.5, 20.0])
    costs, error = fit_costs(work, work @ wanted)
    np.testing.assert_allclose(costs, wanted, rtol=1e-9)
    assert error < 1e-9


def test_a_fit_is_never_absurd() -> None:
    """A partial tile costs as much as a full one at least; nothing is negative."""
    work = work_of(Schedule())
    costs, error = fit_costs(work, work @ np.array([4.0, 1.0, 30.0]))
    assert costs[1] >= costs[0] > 0
    assert costs[2] >= 0
    assert 0 < error < 0.2
    costs, _ = fit_costs(work, work @ np.array([4.0, 4.0, -20.0]))
    assert (costs >= 0).all()
    two, _ = fit_costs(work[:2], work[:2] @ np.array([4.0, 4.0, 10.0]))
    np.testing.assert_allclose(two, [4, 4, 10], rtol=1e-9)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("family", SHARED_BYTES)
def test_candidates_fit_into_shared_memory(family: str, head_dim: int) -> None:
    found = list(candidates(head_dim, family))
    assert len(set(found)) == len(found)
    for one in found:
        assert one.stages is not None
        needed = shared_bytes(Work.FORWARD, one, head_dim, 2, one.stages)
        assert needed <= SHARED_BYTES[family]
    if family == "sm_90" and head_dim <= 128:
        assert Schedule(64, 64, 4, 3) in found
        assert Schedule(128, 128, 8, 2) in found
