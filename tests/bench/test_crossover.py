"""Times of choosing that are fitted to records: those that the records were made from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from patternc.bench.crossover import fit, fit_parts
from patternc.bench.record import Selected, Shape
from patternc.bench.selecting import choice_named
from patternc.plan.choosing_work import work_of
from patternc.plan.measured import CHOOSING
from patternc.plan.prices import Choosing

TRUE = Choosing("sm_90", 1.5, 0.8, 1.2, 30.0, 200.0, 3.0, 1.1, 0.9, "some device")


def record(name: str, length: int, density: float = 0.04) -> Selected:
    """What would be measured if `TRUE` were."""
    shape = Shape(1, 8, 2, length, 128)
    attention = choice_named(name).attention(shape)
    work = work_of(attention.kernel.attention, length, density)
    plan, attend, dense = work.milliseconds(TRUE, is_short=False)
    return Selected(
        name,
        shape,
        density=density,
        plan_ms=plan,
        attend_ms=attend,
        together_ms=plan + attend,
        dense_ms=dense,
    )


RECORDS = [
    record(name, length)
    for name in ("vertical_slash", "block_topk", "xattention_10")
    for length in (16384, 32768, 131072)
]


def test_times_are_found_again() -> None:
    found = fit(RECORDS, CHOOSING[0], "sm_90", "some device")
    assert found is not None and found.error < 0.01
    assert found.line.startswith('Choosing("sm_90", 1.50, 0.8, 1.2, 30, 200, 3,')
    wanted = replace(TRUE, tile_ps=CHOOSING[0].tile_ps * 0.8 / CHOOSING[0].dense_ps)
    for name in Choosing.__slots__:
        value, right = getattr(found.times, name), getattr(wanted, name)
        near = right if isinstance(right, str) else pytest.approx(right, 0.01)
        assert value == near, name


def test_what_was_not_measured_keeps_its_time() -> None:
    lines = [one for one in RECORDS if one.choice == "vertical_slash"]
    found = fit(lines, CHOOSING[0], "sm_90", "some device")
    assert found is not None
    assert found.times.block_ps == CHOOSING[0].block_ps
    assert found.times.ranked_ps == CHOOSING[0].ranked_ps
    assert found.times.line_ps == pytest.approx(3.0)


def test_records_that_say_nothing_are_left_out() -> None:
    one = RECORDS[0]
    shape = replace(one.shape, head_dim=64)
    others = [
        replace(one, note="; failed"),
        replace(one, choice="someone_s_own"),
        replace(one, shape=shape),
        replace(one, plan_ms=0.0),
    ]
    assert fit(others, CHOOSING[0], "sm_90", "some device") is None
    dense = replace(one, note="; dense by the cost model", is_dense=True)
    assert fit([dense], CHOOSING[0], "sm_90", "some device") is not None


def test_no_part_is_negative() -> None:
    counts = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    found = fit_parts(counts, np.array([3.0, 2.0, 1.0]), [7.0, 7.0])
    assert found[1] == 0.0 and 1.0 < found[0] < 3.0
    kept = fit_parts(counts * [1.0, 0.0], np.array([2.0, 2.0, 2.0]), [7.0, 9.0])
    assert kept == pytest.approx([2.0, 9.0])
