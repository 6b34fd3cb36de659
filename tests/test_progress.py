"""Progress lines and the environment: silent when quick, told when slow."""

from __future__ import annotations

import os
import sys
import types

import pytest

from patternc import progress as module
from patternc.progress import progress
from patternc.settings import Settings, from_environment, interpret_triton


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("quick"):
        pass
    assert capsys.readouterr() == ("", "")


def test_what_is_slow_is_told_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", -1.0)
    with progress("slow"):
        pass
    with progress("slow and quiet", quiet=True):
        pass
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "slow: 0.0 s" in shown.err and "quiet" not in shown.err


def test_an_error_goes_through() -> None:
    with pytest.raises(KeyError), progress("failing"):
        raise KeyError


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_environment({}) == Settings(triton_interpret=False, quiet=False)
    assert from_environment({"TRITON_INTERPRET": "0"}) == Settings()
    assert from_environment({"PATTERNC_QUIET": "1"}).quiet
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    interpret_triton()
    assert os.environ["TRITON_INTERPRET"] == "1"


def test_it_is_too_late_once_triton_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="imported before"):
        interpret_triton()
