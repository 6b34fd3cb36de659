"""Whether generated text is as a formatter would write it."""

from __future__ import annotations

import subprocess
import sys


def assert_formatted(text: str) -> None:
    """Fail with what `ruff format` finds."""
    assert_clean(text, "format", "--check")


def assert_clean(text: str, *check: str) -> None:
    """Fail with what a command of ruff finds, by its own rules alone."""
    command = [sys.executable, "-m", "ruff", *check, "--isolated", "-"]
    done = subprocess.run(
        command, input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
