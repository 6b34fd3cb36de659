"""The part of the suite that chooses keys: what it says is what was chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from patternc.bench import selecting
from patternc.bench.acceptance import check
from patternc.bench.clocks import VERY_LONG_MS
from patternc.bench.record import (
    FA3,
    FLASH,
    Records,
    Selected,
    Shape,
    Timing,
    from_json,
    merge,
    to_json,
)
from patternc.bench.report import report
from patternc.bench.selecting import (
    CHOICES,
    OR_DENSE,
    Choice,
    choice_named,
    compare,
    line_of,
    shape_at,
    shares_for,
)
from patternc.bench.structured import structured

CPU = torch.device("cpu")
SHAPE = Shape(1, 4, 2, 512, 64, "float32")
SMALL = Choice(
    "small", "vertical_slash", {"columns": 40, "slashes": 60, "near": 20, "last": 32}
)


def once(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


def test_density_and_recall_are_those_of_the_mask() -> None:
    found = compare(SMALL, SHAPE, CPU, once)
    assert not found.note and min(found.plan_ms, found.attend_ms) > 0
    made = structured(1, 4, 2, 512, 64, torch.float32)
    attention = SMALL.attention(SHAPE)
    mask = attention.mask(512, 512, plan=attention.plan(made.q, made.k))[0]
    assert found.density == pytest.approx(float(mask.double().mean()), rel=1e-4)
    keys = made.k[0].repeat_interleave(2, dim=0)
    logits = made.q[0] @ keys.mT / 8
    hidden = torch.ones(512, 512, dtype=torch.bool).triu(1)
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    kept = float((weights * mask).sum() / (4 * 512))
    assert found.recall == pytest.approx(kept, abs=1e-4)
    assert 0.6 < kept < 1
    assert found.dense_ms > 0 and not found.is_dense
    by_name = {peer.system: peer for peer in found.peers}
    assert by_name[FA3].ms is None and by_name[FA3].note
    assert by_name[FLASH].ms is not None
    assert "recall" in line_of(found)


def test_a_failure_is_a_note() -> None:
    broken = replace(SMALL, values={"columns": -1})
    found = compare(broken, SHAPE, CPU, once)
    assert found.note and found.together_ms == 0 and found.peers
    assert found.ratio(FLASH) is None


def test_thresholds_are_searched_for_a_density() -> None:
    values = {"stride": 8, "block": 16}
    choice = Choice("x", "xattention", values, 0.4, entry="xattention_by_head")
    made = structured(1, 4, 2, 512, 64, torch.float32)
    program = choice.attention(SHAPE)
    given = shares_for(program, 0.4, made.q, made.k)
    assert len(set(given["threshold"].tolist())) == 4
    plan = program.plan(made.q, made.k, threshold=given["threshold"])
    for mask in program.mask(512, 512, plan=plan)[0]:
        assert 2 * float(mask.float().mean()) == pytest.approx(0.4, abs=0.06)
    found = compare(choice, SHAPE, CPU, once)
    assert 2 * found.density == pytest.approx(0.4, abs=0.04)
    assert not found.note and dict(found.values)["threshold"] > 0


@pytest.mark.parametrize(
    "choice", [*CHOICES, *OR_DENSE], ids=lambda choice: choice.name
)
def test_every_choice_compiles(choice: Choice) -> None:
    assert choice_named(choice.name) is choice
    attention = choice.attention(shape_at(32768))
    assert attention.selects
    allowed = bool(attention.kernel.attention.dense_cases)
    assert allowed == (choice in OR_DENSE)


def test_an_unknown_choice() -> None:
    with pytest.raises(ValueError, match="choices are vertical_slash"):
        choice_named("nothing")


def selected(name: str, length: int, together: float) -> Selected:
    peers = (Timing(FA3, 10.0), Timing(FLASH, None, note="absent"))
    return Selected(
        name,
        Shape(1, 32, 8, length, 128),
        (("p", 0.9),),
        0.1,
        0.95,
        0.2,
        together - 0.2,
        together,
        (("probe_kernel", 0.1),),
        peers,
    )


def test_records_report_and_promises() -> None:
    rows = (
        selected("vertical_slash", 131072, 2.0),
        selected("xattention_10", 131072, 5.0),
        replace(
            selected("vertical_slash_or_dense", 4096, 10.2), dense_ms=9.0, is_dense=True
        ),
        selected("vertical_slash_or_dense", 8192, 11.0),
    )
    records = Records("one", selected=rows)
    assert from_json(to_json(records)) == records
    assert merge([records, records]) == records
    old = to_json(Records("one")).replace(',\n "selected": []', "")
    assert "selected" not in old and from_json(old) == Records("one")
    text = report(records)
    assert "10.200 (dense)" in text and "9.000" in text
    assert "## Selection at run time" in text and "probe_kernel 0.100" in text
    verdicts = {item.promise: item.holds for item in check(records)}
    assert verdicts == {
        "vertical_slash at 131072: FA3 over both >= 4.0": True,
        "vertical_slash at 131072: the plan takes at most 15%": True,
        "xattention_10 at 131072: FA3 over both >= 4.0": False,
        "vertical_slash_or_dense at 4096: at most 5% slower than dense": True,
        "vertical_slash_or_dense at 4096: at most 5% slower than our own dense": False,
        "vertical_slash_or_dense at 8192: at most 5% slower than dense": False,
    }


@pytest.mark.parametrize("ms", [VERY_LONG_MS / 2, VERY_LONG_MS])
def test_a_slow_peer_leaves_out_the_others(
    ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peer(system: str, *_: object) -> Timing:
        return Timing(system, ms)

    monkeypatch.setattr(selecting, "_peer", peer)
    tensors = (torch.empty(0), torch.empty(0), torch.empty(0))
    first, *others = selecting._peers(SHAPE, tensors, once)
    assert (first.system, first.ms) == (FA3, ms)
    is_slow = ms >= VERY_LONG_MS
    assert [item.ms is None for item in others] == [is_slow] * len(others)
    assert all(("not run" in item.note) == is_slow for item in others)
