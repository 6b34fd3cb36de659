"""Packages that are built together: what they share changes no byte of any."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from patternc.backends.triton import assembler, build
from patternc.backends.triton.assembler import has_fixed_addresses, steady
from patternc.backends.triton.machine_code import Job
from patternc.backends.triton.workers import compile_all
from patternc.cli import main
from tests.runtime.packages import PROGRAMS, fake_compile

ROOT = Path(__file__).parents[2]

OPTIONS = ("--target", "sm_80,sm_90", "--head-dim", "64", "--jobs", "2")


def test_what_targets_share_changes_no_code() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.runtime.compile_apart"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    # AMD's kernels read by pointers, as those of sm_80 do.
    assert int(done.stdout) == 2


def built(folder: Path, names: list[str], output: Path) -> int:
    paths = [folder / f"{name}.pat" for name in names]
    for name, path in zip(names, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PROGRAMS[Path(name).name])
    files = [str(path) for path in paths]
    with patch.object(build, "compile_job", fake_compile):
        return main(["build", *files, *OPTIONS, "-o", str(output)])


def test_several_programs_give_the_packages_of_each(tmp_path: Path) -> None:
    names = ["causal", "window", "duo"]
    assert built(tmp_path, names, tmp_path / "all") == 0
    assert {x.name for x in (tmp_path / "all").iterdir()} == {
        f"{name}.patk" for name in names
    }
    for name in names:
        alone = tmp_path / "alone.patk"
        assert built(tmp_path / "other", [name], alone) == 0
        assert alone.read_bytes() == (tmp_path / f"all/{name}.patk").read_bytes()


def test_two_programs_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        built(tmp_path, ["causal", "other/causal"], tmp_path / "all")
    assert "two of the programs would be " in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_several_packages_need_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all").write_text("a file")
    with pytest.raises(SystemExit, match="2"):
        built(tmp_path, ["causal", "duo"], tmp_path / "all")
    assert "is no folder for several packages" in capsys.readouterr().err
    assert (tmp_path / "all").read_text() == "a file"


def test_a_machine_without_fixed_addresses_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch("patternc.cli.build.has_fixed_addresses", lambda: False):
        assert built(tmp_path, ["causal"], tmp_path / "causal.patk") == 0
    assert "draws every process's addresses by lot" in capsys.readouterr().err


def stack_of_a_process() -> str:
    """Where the stack of a new process lies."""
    command = ["grep", "stack", "/proc/self/maps"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not has_fixed_addresses(), reason="a sandbox forbids it")
def test_the_assembler_has_the_same_addresses_each_time(tmp_path: Path) -> None:
    drawn = {stack_of_a_process() for _ in range(3)}
    with steady(tmp_path):
        fixed = {stack_of_a_process() for _ in range(3)}
    after = {stack_of_a_process() for _ in range(3)}
    assert len(drawn) > 1 and len(fixed) == 1 and len(after) > 1


def test_the_assemblers_files_have_names_of_one_length(tmp_path: Path) -> None:
    before, found = tempfile.gettempdir(), []
    for name in ("short", "a_longer_name"):
        folder = tmp_path / name
        folder.mkdir()
        for _ in range(2):  # a second kernel finds the folder there
            with steady(folder), tempfile.NamedTemporaryFile() as file:
                assert Path(file.name).is_relative_to(folder)
                found.append(len(file.name))
    assert len(set(found)) == 1 and tempfile.gettempdir() == before
    assert found[0] > assembler._LENGTH


def test_jobs_that_differ_by_target_follow_one_another() -> None:
    order: list[tuple[str, str]] = []

    def note(path: Path, job: Job, cache: Path) -> str:
        assert cache.is_dir()
        order.append((job.kernel, job.target))
        return f"{path.name} {job.kernel} {job.target}"

    def job(kernel: str, target: str) -> Job:
        return Job(kernel, target, "fp16", (), (("HEAD_DIM", 64),), (), 4, 2)

    jobs = [job(x, y) for y in ("sm_80", "sm_90") for x in ("some", "key_gradient")]
    told: list[tuple[int, int]] = []
    work = {Path("one.py"): jobs, Path("two.py"): jobs[:1]}
    done: object = compile_all(work, note, 0, lambda *pair: told.append(pair))  # type: ignore[arg-type]
    expected = [f"one.py {x.kernel} {x.target}" for x in jobs]
    assert done == {Path("one.py"): expected, Path("two.py"): ["two.py some sm_80"]}
    assert order[:2] == [("key_gradient", "sm_80"), ("key_gradient", "sm_90")]
    assert told[0] == (0, 5) and told[-1] == (5, 5)
