"""The documents tell the truth: the files they name exist, the README's code runs."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from patternc import driver
from patternc.cli import COMMANDS, main
from patternc.source import Source

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
SUFFIXES = (".md", ".py", ".pat", ".png", ".toml", ".txt", ".lark", ".safetensors", "/")
MADE = ("build/", "out/", ".venv")
"""Where runs write: these need not be there."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _named_files(text: str) -> list[str]:
    """Paths in backticks and in links."""
    prose = _BLOCK.sub("", text)
    quoted = re.findall(r"`([\w./-]+)`", prose)
    linked = re.findall(r"\]\(([^)#]+)\)", prose)
    paths = [name for name in quoted if "/" in name and name.endswith(SUFFIXES)]
    return [name for name in [*paths, *linked] if "://" not in name]


def _blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    path = ROOT / document
    for name in _named_files(path.read_text()):
        if name.startswith(MADE):
            continue
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


def test_the_readme_names_files() -> None:
    assert len(_named_files((ROOT / "README.md").read_text())) > 5


def test_the_make_targets_of_the_readme_exist() -> None:
    rules = (ROOT / "Makefile").read_text()
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"^make ([\w-]+)|`make ([\w-]+)`", text, re.MULTILINE)
    targets = {line or quoted for line, quoted in named}
    assert {"demo", "test", "check"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target


def test_the_programs_of_the_readme_are_accepted() -> None:
    programs = _blocks("pat")
    assert programs
    for number, text in enumerate(programs):
        found = driver.check_source(Source(f"README-{number}.pat", text))
        assert not [item for item in found if item.is_error]


def test_the_commands_of_the_readme_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for block in _blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    commands = [words for words in commands if words[:1] == ["patternc"]]
    assert {words[1] for words in commands} == set(COMMANDS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for words in commands:
        if (
            words[1] == "build"
        ):  # Triton may have been told to interpret in this process
            command = [sys.executable, "-m", *words]
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TRITON_INTERPRET": "0",
            }
            subprocess.run(command, env=environment, check=True)
            continue
        assert main(words[1:]) == 0, (words, capsys.readouterr().err)


def test_the_python_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    programs = _blocks("python")
    assert programs
    for number, text in enumerate(programs):
        path = tmp_path / f"readme_{number}.py"
        path.write_text(text)
        runpy.run_path(str(path))
