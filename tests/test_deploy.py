"""The commands of docs/deploy.md run, one after another, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("g++") is None,
    reason="no C or C++ compiler here",
)
def test_the_commands_run(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = (ROOT / "docs" / "deploy.md").read_text()
    commands = [
        shlex.split(line)
        for block in _SHELL.findall(text)
        for line in block.splitlines()
    ]
    assert {words[0] for words in commands} == {"patternc", "cc", "python"}
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    # Triton may have been told to interpret in this process.
    environment = {**os.environ, "PYTHONPATH": paths, "TRITON_INTERPRET": "0"}
    for words in commands:
        if words[0] == "patternc":
            words = [sys.executable, "-m", *words]
        elif words[0] == "python":
            words[0] = sys.executable
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        assert "False" not in done.stdout, done.stdout
    assert (tmp_path / "duo_hub/build/torch-cuda/metadata.json").exists()
    assert (tmp_path / "causal/causal_attention_code.h").exists()
