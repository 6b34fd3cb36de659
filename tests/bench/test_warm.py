"""The processes that compile ahead share out the rows."""

from __future__ import annotations

import os

import pytest

from patternc.bench.suite import ROWS
from patternc.bench.warm import commands


@pytest.mark.parametrize("cores", [1, 4, 64])
def test_every_row_in_exactly_one_process(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    found = commands(("backward", "ready"), ROWS, (128, 64))
    names = [name for share in found for name in share[-1].split(",")]
    assert sorted(names) == sorted(row.name for row in ROWS)
    assert len(found) == {1: 1, 4: 2, 64: 6}[cores]
    sizes = ["--head-dim", "128", "--head-dim", "64", "--rows"]
    assert found[0][:-1] == ["bench", "--suite", "--part", "backward", *sizes]


def test_nothing_to_compile_ahead() -> None:
    assert commands(("ready", "shapes"), ROWS, (128,)) == []
    assert commands(("forward",), ROWS[:1], (128,)) == []
