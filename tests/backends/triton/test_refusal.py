"""A `score` is refused, with the place and what to do, by every way to a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

import patternc
from patternc.cli import main

SCORES = Path(__file__).parents[3] / "examples" / "10_scores.pat"


def test_the_backend_points_at_the_score() -> None:
    attention = patternc.load(SCORES, "alibi_softcap")
    with pytest.raises(patternc.PatternError) as caught:
        attention.backend("triton")
    (found,) = caught.value.diagnostics
    assert found.code == "unsupported"
    assert found.span.text.startswith("score softcap(s, 50.0)")
    assert 'backend="tiled"' in found.help


def test_compile_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(SCORES), "-o", str(tmp_path / "out")]) == 1
    assert "error[unsupported]" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.py")) == []
