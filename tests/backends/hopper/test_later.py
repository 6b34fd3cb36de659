"""A first call has its result before its second launch is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from patternc.backends.triton.template import read
from tests.backends.hopper.compile_later import MARK
from tests.backends.hopper.programs import module_of

ROOT = Path(__file__).parents[3]


def test_the_second_launch_waits_for_a_mark(tmp_path: Path) -> None:
    """Or for the next call; where nothing can be looked at both are compiled first."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.backends.hopper.compile_later", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "first 1, 1",
        "first 2, again 2, 0",
        "first 2, again 2, 0",
        "first 1, again 2, 0",
        "first 2, again 2, 0",
    ]


@pytest.mark.parametrize(
    ("is_cuda", "captures", "mode", "wanted"),
    [
        (True, False, 0, True),
        (False, False, 0, False),
        (True, True, 0, False),
        (True, False, 2, False),
    ],
)
def test_the_host_waits_only_where_it_may(
    is_cuda: bool,
    captures: bool,
    mode: int,
    wanted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = module_of("causal", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captures)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode)
    assert module.can_look(SimpleNamespace(is_cuda=is_cuda)) == wanted


def test_the_mark_is_that_of_the_kernels() -> None:
    assert hex(MARK)[2:].upper() in read("marks.py.tmpl")
    assert hex(MARK)[2:].upper() in read("later.py.tmpl", "patternc.backends.hopper")
