"""The text of the kernel for Hopper, which programs have one, and what is beside it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import patternc
from patternc import driver
from patternc.backends.hopper import emit
from patternc.backends.hopper.route import hopper_kernel, refusal
from patternc.plan.kernel import Schedule
from patternc.source import Source
from tests.backends.hopper.programs import NAMES, module_of, text_of
from tests.backends.triton import data_programs, programs

GOLDEN = Path(__file__).parent / "golden" / "window.py.txt"

FROZEN = """attention frozen {
    heads 2
    mask causal
    schedule { block_q = 128 }
}
"""


def hopper_texts(name: str) -> tuple[str, str]:
    """The Gluon kernel and its launch alone."""
    kernel = hopper_kernel(programs.kernel_of(name, Schedule()))
    assert kernel is not None
    return emit.kernel_text(kernel), emit.launch_text(kernel)


def test_one_kernel_is_as_it_was() -> None:
    """To accept a change: write `"\\n\\n".join(hopper_texts("window"))` to the file."""
    assert "\n\n".join(hopper_texts("window")) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_text_is_formatted_and_the_same_each_time(name: str) -> None:
    text = text_of(name)
    assert text == text_of(name)
    assert all(part in text for part in hopper_texts(name))
    command = [sys.executable, "-m", "ruff", "format", "--check", "--isolated", "-"]
    done = subprocess.run(
        command, input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_names_are_defined_once(name: str) -> None:
    """The kernel for Hopper shares a module with the portable ones."""
    body = ast.parse(text_of(name)).body
    names = [item.name for item in body if isinstance(item, ast.FunctionDef)]
    assert len(names) == len(set(names))


def test_the_portable_module_says_nothing_of_it() -> None:
    assert "gluon" not in programs.text_of("causal", Schedule())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("listed", "its tiles have no closed form"),
        ("negative", "its mask divides by a number that is no power of two"),
        ("mixed", "its tokens have an order"),
    ],
)
def test_programs_without_one(name: str, reason: str) -> None:
    kernel = programs.kernel_of(name, Schedule())
    assert reason in refusal(kernel)
    assert hopper_kernel(kernel) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [("documents", "it reads inputs"), ("sinks", "it reads inputs")],
)
def test_programs_with_inputs_have_none(name: str, reason: str) -> None:
    assert refusal(data_programs.kernel_of(name, Schedule())) == reason


def test_tiles_that_were_asked_for_are_kept() -> None:
    frozen = driver.compile_source(Source("frozen.pat", FROZEN))
    assert refusal(frozen) == "the schedule block in line 4 asks for tiles of its own"
    small = programs.kernel_of("causal", Schedule(32, 32))
    assert refusal(small) == "tiles of 32 queries were asked for"
    assert refusal(programs.kernel_of("causal", Schedule())) == ""


def test_a_call_without_a_hopper_gpu_takes_the_portable_kernel(tmp_path: Path) -> None:
    path = tmp_path / "window.pat"
    path.write_text(programs.PROGRAMS["window"])
    q = torch.randn(1, 4, 70, 64)
    k, v = torch.randn(2, 1, 2, 70, 64)
    found = patternc.load(path, backend="hopper")(q, k, v)
    wanted = patternc.load(path, backend="reference")(q, k, v)
    torch.testing.assert_close(found, wanted)
    module = module_of("window", tmp_path)
    assert not module.runs_on_hopper(q.half(), v.half(), "descriptor", 1.0)


def test_query_tiles_are_counted_as_the_portable_kernel_counts(tmp_path: Path) -> None:
    tiles_of = module_of("window", tmp_path).tiles_of
    for n_q, q_offset, rows in ((1, 0, 64), (64, 0, 64), (300, 700, 128), (9, -5, 64)):
        first, count = tiles_of(n_q, q_offset, rows)
        tiles = {q // rows for q in range(q_offset, q_offset + n_q)}
        assert (first, count) == (min(tiles), len(tiles))
