"""The random programs of `make fuzz`, a few of them, and faults that they must find."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from patternc import passes
from patternc.backends.tiled import TiledAttention
from patternc.ir.nodes import FULL_PATTERN, Attention
from patternc.passes import final_masks
from patternc.plan.kernel import Kernel, Schedule, TileKind
from patternc.plan.tiling import plan
from tests.fuzz import compare, terms
from tests.fuzz.difference import Difference
from tests.fuzz.run import main, program_of

SEED = 1
MANY = 60


def compare_one(index: int, stages: compare.Stages) -> compare.Outcome:
    return compare.compare(program_of(SEED, index), Random(index), stages)


@pytest.mark.parametrize("start", range(0, 40, 8))
def test_programs_are_what_they_mean(start: int) -> None:
    outcomes = [
        compare_one(index, compare.Stages(order=index % 8 == 0, asserts=index % 8 == 3))
        for index in range(start, start + 8)
    ]
    assert sum(outcome.pairs for outcome in outcomes) > 0
    assert sum(bool(outcome.refused) for outcome in outcomes) < 4


def test_a_program_is_the_same_whatever_is_drawn_before() -> None:
    assert program_of(SEED, 7).text == program_of(SEED, 7).text
    assert program_of(SEED, 7).text != program_of(SEED, 8).text
    assert program_of(SEED, 7).text != program_of(SEED + 1, 7).text


def test_a_run_reports_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--start", "1", "--count", "2"]) == 0
    assert "2 programs" in capsys.readouterr().out
    assert main(["--seed", "1", "--count", "2", "--seconds", "0"]) == 1


# --- what the programs must find


def finds_a_difference() -> bool:
    stages = compare.Stages(findings=False, order=False, budget=False, asserts=False)
    for index in range(MANY):
        try:
            compare_one(index, stages)
        except Difference:
            return True
    return False


def test_a_tile_that_is_called_full_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def bold(attention: Attention, schedule: Schedule) -> Kernel:
        kernel = plan(attention, schedule)
        covers = tuple(
            replace(
                cover,
                ranges=cover.ranges
                and tuple(
                    replace(part, kind=TileKind.FULL, residual=FULL_PATTERN)
                    for part in cover.ranges
                ),
            )
            for cover in kernel.covers
        )
        return replace(kernel, covers=covers)

    monkeypatch.setattr(compare, "plan", bold)
    assert finds_a_difference()


def test_a_range_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(attention: Attention, schedule: Schedule) -> Kernel:
        kernel = plan(attention, schedule)
        covers = tuple(
            replace(cover, ranges=cover.ranges and cover.ranges[1:])
            for cover in kernel.covers
        )
        return replace(kernel, covers=covers)

    monkeypatch.setattr(compare, "plan", short)
    assert finds_a_difference()


def test_a_pass_that_mixes_the_heads_up_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mixed(attention: Attention) -> Attention:
        attention = final_masks(attention)
        masks = [case.mask for case in attention.cases]
        cases = zip(attention.cases, masks[::-1], strict=True)
        return replace(
            attention, cases=tuple(replace(case, mask=mask) for case, mask in cases)
        )

    monkeypatch.setattr(passes, "final_masks", mixed)
    assert finds_a_difference()


def test_a_clause_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sinks(kernel: Kernel) -> TiledAttention:
        return TiledAttention(
            replace(kernel, attention=replace(kernel.attention, sinks=(), outputs=()))
        )

    monkeypatch.setattr(compare, "TiledAttention", without_sinks)
    assert finds_a_difference()


# --- what is written a second time, by hand


def test_a_coordinate_outside_of_its_segment_is_not_known() -> None:
    """Two tokens of text, then a segment of 3 x 2: see the page of the language."""
    frame = {
        token: terms.coordinate(token, "f", 2, {"f": 3, "x": 2}) for token in ("q", "k")
    }
    positions = np.arange(8)
    at = terms.Place(
        {"q": terms.known(positions[:, None]), "k": terms.known(positions)}, {}
    )
    same = terms.chain(frame["q"], [("==", frame["k"])])
    other = terms.chain(frame["q"], [("!=", frame["k"])])
    assert same.text == "q.f == k.f"
    block = np.kron(np.eye(3, dtype=np.bool_), np.ones((2, 2), dtype=np.bool_))
    expected = np.zeros((8, 8), dtype=np.bool_)
    expected[2:, 2:] = block
    assert np.array_equal(same.at(at), expected)
    expected[2:, 2:] = ~block
    assert np.array_equal(other.at(at), expected)
    turned = terms.complement(same)
    assert turned.text == "~q.f == k.f"
    assert turned.at(at)[:2].all()
