"""The choice of a tile: by the model from what was measured, else by rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patternc.driver import trace_source
from patternc.ir.nodes import Attention
from patternc.plan.choose import (
    SHARED_BYTES,
    bytes_beside,
    choose,
    launch,
    launches,
    most_stages,
    predict,
    shared_bytes,
)
from patternc.plan.kernel import Schedule
from patternc.plan.measured import MEASURED, Measured, Work
from patternc.plan.tiling import plan
from patternc.source import Source

SMALL = Measured("sm_90", Work.FORWARD, 128, 2, 64, 64, 4, 3, 4.0, 4.0, 16.0, "one")
LARGE = replace(SMALL, block_q=128, block_k=128, warps=8, stages=2)


def attention_of(mask: str, more: str = "") -> Attention:
    text = f"attention a {{ heads 4 {more} mask {mask} }}"
    return trace_source(Source("a.pat", text)).after[-1][1]


def cheap(item: Measured, ratio: float) -> Measured:
    """`item` at `ratio` times the cost for each pair of the small tile."""
    area = item.block_q * item.block_k / (64 * 64) * ratio
    return replace(item, full_ns=4 * area, partial_ns=4 * area, start_ns=32.0)


def test_large_tiles_win_where_all_is_full_and_lose_where_they_are_partial() -> None:
    table = (SMALL, cheap(LARGE, 0.9))
    dense, narrow = choose(attention_of("full"), table), attention_of("window(64)")
    assert (dense.schedule.block_q, dense.schedule.block_k) == (128, 128)
    assert dense.schedule.warps == 8
    assert "64x64" in dense.origin
    assert "128x128" in dense.origin
    assert choose(narrow, table).schedule == Schedule(64, 64)


def test_a_prediction_adds_up() -> None:
    trace = trace_source(Source("a.pat", "attention a { heads 4 mask causal }"))
    tiles = 256 * 255 // 2
    wanted = 4 * (tiles * 4.0 + 256 * 5.0 + 256 * 16.0) / 1e6
    item = replace(SMALL, partial_ns=5.0)
    assert predict(trace.kernel, item, {}) == pytest.approx(wanted)


def test_the_model_predicts_what_it_was_fitted_to() -> None:
    """The published times of an H200, causal and window at both head sizes."""
    times = {("causal", 128): 4.563, ("window(1024)", 128): 0.698}
    times |= {("causal", 64): 2.720, ("window(1024)", 64): 0.399}
    for (mask, columns), ms in times.items():
        item = next(item for item in MEASURED if item.columns == columns)
        text = f"attention a {{ heads 32 mask {mask} }}"
        kernel = trace_source(Source("a.pat", text)).kernel
        assert predict(kernel, item, {}) == pytest.approx(ms, rel=0.03)


def test_without_a_comparison_it_is_the_default_and_says_so() -> None:
    two = (SMALL, cheap(LARGE, 0.5))
    assert "only tile" in choose(attention_of("full"), (SMALL,)).origin
    assert "nothing was measured" in choose(attention_of("full"), ()).origin
    documents = attention_of("doc[q] == doc[k]", "input doc[k] : int")
    assert "listed at a call" in choose(documents, two).origin
    for attention, table in ((documents, two), (attention_of("full"), (SMALL,))):
        assert choose(attention, table).schedule == Schedule()


def test_another_device_or_head_size_is_not_compared() -> None:
    others = (replace(LARGE, device="two"), replace(LARGE, columns=64))
    for other in (*others, replace(LARGE, family="sm_80")):
        found = choose(attention_of("full"), (SMALL, cheap(other, 0.1)))
        assert found.schedule == Schedule(), other


def test_launches_are_measured_or_follow_the_rules() -> None:
    assert launch(Work.FORWARD, Schedule(), 128, 2).stages == 3
    assert launch(Work.FORWARD, Schedule(), 64, 2).stages == 2
    assert launch(Work.FORWARD, Schedule(), 64, 2).is_measured
    by_rule = launch(Work.KEY, Schedule(64, 128), 128, 2)
    assert (by_rule.warps, by_rule.is_measured) == (8, False)
    assert launch(Work.KEY, Schedule(), 32, 2).warps == 4
    wide = {launch(work, Schedule(), 256, 2).warps for work in (Work.KEY, Work.QUERY)}
    assert wide == {8}
    assert launch(Work.FORWARD, Schedule(stages=5), 64, 2).stages == 5
    table = launches(Schedule())
    assert table["forward", 128, 2] == (4, 3)
    assert {work for work, _, _ in table} == {"forward", "query", "key"}


def test_shared_memory_is_predicted_and_refused() -> None:
    one = shared_bytes(Work.FORWARD, Schedule(), 64, 2, 2)
    assert one == 41984  # what Triton's compiler reports for sm_90
    assert shared_bytes(Work.FORWARD, Schedule(), 64, 2, 3) == 58368
    for family, limit in SHARED_BYTES.items():
        fits = most_stages(Work.FORWARD, Schedule(), 64, 2, family)
        assert shared_bytes(Work.FORWARD, Schedule(), 64, 2, fits) <= limit
        assert shared_bytes(Work.FORWARD, Schedule(), 64, 2, fits + 1) > limit
    with pytest.raises(ValueError, match="take smaller tiles"):
        launch(Work.FORWARD, Schedule(128, 128), 256, 4)
    with pytest.raises(ValueError, match="families are"):
        most_stages(Work.FORWARD, Schedule(), 64, 2, "sm_70")
    assert ("forward", 256, 4) not in launches(Schedule(128, 128))


def test_the_program_chooses_and_the_caller_has_the_last_word() -> None:
    block = "schedule { block_q = 32, stages = 4, block_k = 2 * 64 }"
    source = Source("a.pat", f"attention a {{ heads 1 mask causal\n{block} }}")
    found = trace_source(source)
    assert found.kernel.schedule == Schedule(32, 128, 4, 4)
    assert found.schedule_origin == "the program's schedule block, line 2"
    asked = trace_source(source, schedule=Schedule(16, 16))
    assert asked.kernel.schedule == Schedule(16, 16)
    assert asked.schedule_origin == "asked for by the caller"


def test_stages_leave_room_for_two_blocks() -> None:
    """Only where the tiles alone would have left it, and not what a caller asks for."""
    documents = attention_of("doc[q] == doc[k]", "input doc[k] : int")
    assert bytes_beside(plan(attention_of("causal"), Schedule())) == 0
    chosen = attention_of(
        "causal & (c[k] | d[q - k])", "input c[k] : bool input d[64] : bool"
    )
    assert bytes_beside(plan(chosen, Schedule())) == 0  # gathered by a list
    beside = bytes_beside(plan(documents, Schedule()))
    assert beside == 64 * 8
    before, after = launches(Schedule()), launches(Schedule(), beside=beside)
    assert before["forward", 128, 2] == (4, 3)
    assert after["forward", 128, 2] == (4, 2)
    assert after["forward", 256, 2] == before["forward", 256, 2]
    assert after["key", 128, 2] == before["key", 128, 2]
    asked = launches(Schedule(stages=3), beside=beside)
    assert asked["forward", 128, 2] == (4, 3)
