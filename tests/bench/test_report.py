"""Records survive JSON and merging; the report and its verdicts follow from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patternc.bench.acceptance import check
from patternc.bench.record import (
    BACKWARD,
    FLEX,
    FORWARD,
    OURS,
    Ready,
    Records,
    Result,
    Shape,
    Timing,
    from_json,
    merge,
    to_json,
)
from patternc.bench.report import report

SHAPE = Shape(1, 32, 32, 16384, 128)


def result(row: str, ratio: float | None, direction: str = FORWARD) -> Result:
    """A row that took us 2 ms, and FlexAttention so many times that."""
    flex = Timing(FLEX, None, note="refused: why")
    if ratio is not None:
        flex = Timing(FLEX, 2 * ratio, distance=1e-3)
    timings = (Timing(OURS, 2.0), flex)
    return Result(direction, row, direction, SHAPE, 64, 64, 0.25, 0.5, timings)


def verdicts(*results: Result, ready: tuple[Ready, ...] = ()) -> dict[str, object]:
    found = check(Records("one", results, ready))
    return {item.promise: item.holds for item in found}


def test_records_survive_json() -> None:
    ready = Ready("causal", SHAPE, 1.0, launches=0, bytes=0)
    records = Records("one", (result("causal", 1.25), result("dense", None)), (ready,))
    assert from_json(to_json(records)) == records
    for text in ("[]", "{}", "no", '{"machine": "one", "results": [{}], "ready": []}'):
        with pytest.raises(ValueError, match="not the suite's records"):
            from_json(text)


def test_parts_merge_and_the_later_wins() -> None:
    first = Records("one", (result("causal", 1.0), result("dense", 1.0)))
    later = Records("one", (result("causal", 2.0),))
    merged = merge([first, later])
    assert [r.ratio(FLEX) for r in merged.results] == [2.0, 1.0]
    with pytest.raises(ValueError, match="of one machine"):
        merge([first, replace(later, machine="two")])


def test_rates_count_the_tiles() -> None:
    pairs = 0.5 * 16384**2 * 32
    assert result("causal", 1).rate(0.5) == pytest.approx(4 * 128 * pairs / 2e9)
    backward = result("causal", 1, BACKWARD)
    assert backward.rate(0.5) == pytest.approx(10 * 128 * pairs / 2e9)


def test_a_mean_that_is_reached_and_one_that_is_not() -> None:
    good = verdicts(result("causal", 1.25), result("dense", 1.1))
    assert good["forward D128: geometric mean >= 1.15"] is True
    assert good["forward D128: every row >= 0.95"] is True
    assert good["forward D128: causal >= 1.2"] is True
    bad = verdicts(result("causal", 1.19), result("dense", 0.9))
    assert bad["forward D128: geometric mean >= 1.15"] is False
    assert bad["forward D128: every row >= 0.95"] is False
    assert bad["forward D128: causal >= 1.2"] is False


def test_a_row_that_is_missing_is_never_a_success() -> None:
    found = verdicts(result("causal", 2.0, BACKWARD), result("dense", None, BACKWARD))
    assert found["backward D128: geometric mean >= 1.0"] is None
    assert found["backward D128: every row >= 0.95"] is None


def test_lists_and_launches() -> None:
    documents = Ready(
        "documents_8_causal", SHAPE, call_ms=1.03, kernel_ms=1.0, launches=3
    )
    causal = Ready("causal", SHAPE, 4.0, 1.5, 0, 0, 1.0, 1.0)
    found = verdicts(ready=(documents, causal))
    lists = "documents_8_causal: getting ready under 2% of the kernel"
    assert found[lists] is False
    assert found["causal: nothing on the device before the kernel"] is True
    assert found["causal: first result, cold, in 5.0 s"] is True
    assert found["causal: first result, warm, in 1.0 s"] is False


def test_a_live_tile_costs_the_same_at_any_length() -> None:
    def at(length: int, ms: float) -> Result:
        shape = replace(SHAPE, length=length, heads=32 * 16384 // length)
        long = replace(result("window_1024", None), part="long", shape=shape)
        share = 0.5 * 16384 / length
        return replace(long, tile_density=share, timings=(Timing(OURS, ms),))

    even = verdicts(at(1024, 9.0), at(16384, 2.0), at(65536, 2.1))
    promise = "cost of a live tile from 16384 to 65536: within 1.1"
    assert even == {promise: True}
    assert verdicts(at(16384, 2.0), at(65536, 2.3)) == {promise: False}


def test_the_page_says_why_a_row_has_no_time() -> None:
    ready = Ready("causal", SHAPE, 1.0, 0.5, 0, 0, 1.0, 1.0, 3.0, 2**20)
    results = (result("causal", 1.25), result("dense", None))
    page = report(Records("a machine", results, (ready,)))
    assert "Device: a machine." in page
    assert "| causal | 25.00% | 50.00% | 64x64 | 2.000 |" in page
    assert "Geometric means: FlexAttention 1.25 over 1 rows." in page
    assert "- FlexAttention: refused: why (dense)" in page
    assert "| forward D128: geometric mean >= 1.15 | ? | 1.25; without dense |" in page
    assert "| causal | 1.00 | 0.50 | 0 | 0 | 1.000 | 1.000 | 3.00 | 1 |" in page


def test_noise_around_nothing_is_not_shown_as_a_gain() -> None:
    times = ((0.993, "< 1%"), (1.004, "< 1%"), (1.013, "1.3%"))
    for call_ms, shown in times:
        documents = Ready(
            "documents_8_causal", SHAPE, call_ms=call_ms, kernel_ms=1.0, launches=3
        )
        found = check(Records("one", (), (documents,)))
        assert [x.figure for x in found if "getting ready" in x.promise] == [shown]
