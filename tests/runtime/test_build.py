"""Packages with real machine code, made without a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from patternc.backends.triton import build, machine_code
from patternc.backends.triton.build import Wanted, build_package
from patternc.backends.triton.expected import expected_times
from patternc.backends.triton.machine_code import Job, compile_job
from patternc.cli import main
from patternc.cli.lint import findings
from patternc.diagnostics import PatternError
from patternc.driver import compile_source
from patternc.runtime.manifest import Usage
from patternc.runtime.package import Package, package_of
from patternc.source import Source
from tests.runtime.packages import (
    FORWARD,
    PROGRAMS,
    fake_compile,
    kernel_of,
    quick_bytes,
    quick_package,
)

ROOT = Path(__file__).parents[2]
TARGETS = ("sm_80", "sm_90", "gfx942")


FULL = "attention everything { heads 4 kv 2 mask full }"
"""No pair is hidden, so that no kernel is launched a second time: there are few."""


def built(folder: Path, jobs: int) -> Path:
    """A package that the command wrote, in a process that interprets nothing."""
    program, path = folder / "full.pat", folder / "full.patk"
    program.write_text(FULL)
    options = ["--target", ",".join(TARGETS), "--dtype", "fp16", "--head-dim", "64"]
    command = [sys.executable, "-m", "patternc", "build", str(program), *options]
    command += ["--no-decode", "--jobs", str(jobs), "-o", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package by two processes."""
    return built(tmp_path_factory.mktemp("one"), 2)


@pytest.fixture(scope="module")
def package(file: Path) -> Package:
    return package_of(file.read_bytes())


def test_the_same_bytes_from_another_folder_by_one_process(
    file: Path, tmp_path: Path
) -> None:
    again = built(tmp_path, 1)
    assert again != file and again.read_bytes() == file.read_bytes()


def test_nothing_of_this_machine_is_inside(package: Package, file: Path) -> None:
    folders = [str(Path(machine_code.__file__).parents[2]), str(file.parent), "/tmp"]
    blobs = [package.blob(at) for at in range(len(package.manifest.blobs))]
    for blob in (*blobs, json.dumps(package.manifest.source.text).encode()):
        for folder in folders:
            assert folder.encode() not in blob
    assert package.manifest.source.file == "full.pat"


def test_what_is_inside(package: Package) -> None:
    manifest = package.manifest
    assert manifest.targets == TARGETS and manifest.compilers["triton"]
    expected = {(target, "forward_kernel") for target in TARGETS}
    expected.add(("sm_90", "hopper_kernel"))
    assert {(x.target, x.kernel) for x in manifest.variants} == expected
    assert len(manifest.variants) == len(expected)
    for variant in manifest.variants:
        assert package.blob(variant.code).startswith(b"\x7fELF")
        assert variant.usage.registers > 0
        is_oldest = variant.target == "sm_80"
        assert (variant.ptx is not None) == is_oldest
        if variant.kernel == "hopper_kernel":
            assert (variant.warps, variant.threads) == (4, 384)  # two groups beside one
        else:
            assert variant.threads == (256 if variant.target == "gfx942" else 128)
        if is_oldest:
            assert variant.ptx is not None
            assert b".target sm_80" in package.blob(variant.ptx)
    kinds = {x.target: {a.kind for a in x.arguments} for x in manifest.variants}
    assert "descriptor" in kinds["sm_90"] and "descriptor" not in kinds["sm_80"]
    counts = {x.target: x.usage.counts for x in manifest.variants}
    assert counts["sm_90"]["wgmma"] and counts["sm_90"]["tma"]
    assert counts["sm_80"]["mma"] and counts["sm_80"]["wide"]
    assert counts["gfx942"]["mfma"] and counts["gfx942"]["wide"]


def test_inspect(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file), "--sass"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("everything: 4 heads, 2 of keys and values, tiles of")
    assert re.search(r"expected on .*, 16384 tokens, batch 1: forward D=64 ", said)
    assert re.search(r"forward fp16 D=64 +4 .* \+ PTX", said)
    assert re.search(r"forward fp16 D=64: .*HGMMA", said)
    assert main(["inspect", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["heads"] == 4


def test_lint(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["lint", str(file)])
    said = capsys.readouterr().out
    assert code == (0 if said == "no findings\n" else 1)
    assert "has no load of 16 bytes" not in said


def test_what_lint_finds() -> None:
    package = quick_package("causal", FORWARD)
    assert list(findings(package)) == []
    for usage, found in (
        (Usage(255, 8, (), {"tma": 1}), "spills 8 bytes"),
        (Usage(9, 0, ("C7511",), {"wide": 1}), "products wait for one another (C7511)"),
        (Usage(9, 0, (), {"narrow": 9}), "has no load of 16 bytes or by TMA"),
    ):
        own = tuple(replace(x, usage=usage) for x in package.manifest.variants)
        manifest = replace(package.manifest, variants=own)
        told = list(findings(replace(package, manifest=manifest)))
        assert {item.what for item in told} == {found}
        assert {x.counts for x in told} == {True, False}
        for item in told:
            assert item.counts != item.variant.constants.get("EXACT", False)


def test_kernels_of_a_plan_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vertical_slash.patk"
    path.write_bytes(quick_bytes("vertical_slash", FORWARD))
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "chooses columns, diagonals; run-time parameters n=9" in said
    assert re.search(r"  choose +4 ", said) and "None" not in said
    assert re.search(r"  diagonals_of_map_0 fp16 D=64 +4 ", said)
    path.write_bytes(quick_bytes("slopes", FORWARD))
    assert main(["inspect", str(path)]) == 0
    assert "reads slope [h] of float, bias [b, k] of float" in capsys.readouterr().out
    package = quick_package("vertical_slash", FORWARD)
    own = tuple(
        replace(x, usage=Usage(9, 0, (), {"narrow": 1}))
        for x in package.manifest.variants
        if not x.dtype
    )
    manifest = replace(package.manifest, variants=own)
    assert own and not list(findings(replace(package, manifest=manifest)))


def test_no_package_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.patk"
    path.write_bytes(b"?")
    for command in ("inspect", "lint"):
        with pytest.raises(SystemExit):
            main([command, str(path)])
        assert "x.patk: this is no package" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--target", "sm_1"], ["--dtype", "int"], ["--head-dim", "0"], ["--jobs", "0"]],
)
def test_options_that_make_no_sense(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["build", "x.pat", "-o", str(tmp_path / "x.patk"), *options])


REFUSED = {
    "order": (
        """attention a {
            heads 2
            input label[k] : int
            mask causal
            order all by labels(label)
        }""",
        "a package has no order by an input yet, and this one sorts by `label`",
    ),
    "selection": (
        """attention a {
            heads 2
            let best = top(8, mean(scores where causal by k % 5))
            mask causal & k % 5 in best
        }""",
        "a package has no plan for this selection yet",
    ),
    "cheaper": (
        """attention a {
            heads 2
            let best = top(8, mean(scores where causal by k))
            mask causal & k in best else dense when cheaper
        }""",
        "this package would have no program for `else dense when cheaper`",
    ),
    "gradients": (
        """attention a {
            heads 2
            input keep[h, k] : bool
            input slope[h] : float
            mask causal & keep[h, k]
            score s + slope[h] * (k - q)
        }""",
        "a package has no gradients of chosen tiles whose scores read inputs",
    ),
    "listed": (
        "attention a { heads 2 mask k * k <= q }",
        "a package has tile lists for a layout's one length only",
    ),
    "parameter": (
        """layout grid = image[y = 8, x = 8]
        attention a(w: runtime = 1) {
            heads 2
            layout grid
            mask abs(q.y - k.y) <= w
            order image by tile(y = 4, x = 4)
        }""",
        "a package has tile lists for one value of each parameter only",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_told_with_its_place(name: str) -> None:
    text, message = REFUSED[name]
    kernel = compile_source(Source("a.pat", text))
    with pytest.raises(PatternError) as caught:
        backward = name == "gradients"
        wanted = Wanted(("sm_90",), ("bf16",), (64,), backward=backward)
        build_package(kernel, wanted, processes=0)
    (found,) = caught.value.diagnostics
    assert found.message == message
    assert found.label and found.help
    assert found.span.source.text == text


@pytest.mark.parametrize(("each", "tried"), [(60_000, [3, 2]), (170_000, [3, 2, 1])])
def test_as_many_stages_as_fit(
    each: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def compile_(kernel: object, job: Job, stages: int, cache: Path) -> object:
        seen.append(stages)
        sizes = SimpleNamespace(shared=each * stages, num_stages=stages)
        return SimpleNamespace(metadata=sizes), ""

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(machine_code, "import_file", lambda _: SimpleNamespace(some=1))
    monkeypatch.setattr(machine_code, "_compile", compile_)
    monkeypatch.setattr(machine_code, "_compiled", lambda made, *_: made)
    job = Job("some", "sm_80", "fp16", (), (), (), 4, 3)
    if each * tried[-1] <= 166_912:
        machine_code.compile_job(Path(), job, Path())
    else:
        with pytest.raises(
            ValueError, match=r"sm_80 has 166912; build it with smaller"
        ):
            machine_code.compile_job(Path(), job, Path())
    assert seen == tried


def test_a_process_that_interprets_builds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    wanted = Wanted(("sm_80",), ("fp16",), (16,), decode=False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET is set"):
        build_package(kernel_of("causal"), wanted, processes=0)


def test_jobs_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Job] = []

    def note(path: Path, job: Job, cache: Path) -> object:
        seen.append(job)
        raise KeyError("enough")

    monkeypatch.setattr(build, "compile_job", note)
    wanted = Wanted(("sm_90",), ("fp16",), (16,), backward=True)
    with pytest.raises(KeyError, match="enough"):
        build_package(kernel_of("causal"), wanted, processes=0)
    assert "key_gradient" in seen[0].kernel  # the longest first
    assert compile_job is not note


@pytest.mark.parametrize(
    ("mask", "shares"),
    [
        ("window(w)", True),  # as wide as a call says
        ("window(5000)", True),
        ("window(100)", False),
        ("causal & k % 8000000 == 0", True),
    ],
)
def test_programs_share_tiles_where_some_length_has_many(
    mask: str, shares: bool
) -> None:
    parameter = "(w: runtime = 1)" if "(w)" in mask else ""
    text = f"attention a{parameter} {{ heads 2 mask {mask} }}"
    kernel = compile_source(Source("a.pat", text))
    with patch.object(build, "compile_job", fake_compile):
        content = build_package(kernel, FORWARD, processes=0)
    variants = package_of(content).manifest.variants
    assert any(x.constants.get("IS_SPLIT") for x in variants) == shares


def test_a_layouts_lists_are_stored_once() -> None:
    manifest = quick_package("ordered").manifest
    (lists,) = manifest.facts.lists
    assert lists.length == 125 and len(lists.forward) == len(lists.turned) == 6
    assert quick_package("causal").manifest.facts.lists == ()


def test_expected_times_follow_the_tiles() -> None:
    kernel, other = kernel_of("full"), kernel_of("window")
    times = [
        {
            (x.work, x.head_dim): x.milliseconds
            for x in expected_times(y, None, (64,), z)
        }
        for y, z in ((kernel, True), (kernel, False), (other, True))
    ]
    assert times[0].keys() == {("forward", 64), ("key", 64), ("query", 64)}
    assert times[1].keys() == {("forward", 64)}
    assert times[2]["forward", 64] < times[0]["forward", 64] / 10


def test_a_program_is_linted_without_writing_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "causal.pat"
    path.write_text(PROGRAMS["causal"])
    with patch.object(build, "compile_job", fake_compile):
        assert main(["lint", str(path), "--target", "sm_90", "--jobs", "2"]) == 0
    said = capsys.readouterr()
    assert said.out == "no findings\n" and "kernels: " in said.err
    assert [x.name for x in tmp_path.iterdir()] == ["causal.pat"]


def test_a_program_with_errors_is_told_as_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.pat"
    path.write_text("attention a { heads 2 mask causal & nothing }")
    command = ["build", str(path), "-o", str(tmp_path / "x.patk")]
    assert main([*command, "--errors", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"]
    assert not (tmp_path / "x.patk").exists()
