"""The text of the kernel for Hopper, which programs have one, and what is beside it."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest
import torch

import patternc
from patternc import driver
from patternc.backends.hopper import emit
from patternc.backends.hopper.route import (
    chosen_route,
    in_words,
    packaged_route,
    possible_route,
    refusal,
)
from patternc.backends.triton.emit import emit as triton_emit
from patternc.backends.triton.load import import_file
from patternc.backends.triton.ranges import hides_pairs
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from patternc.source import Source
from patternc.store import Store
from tests.backends.hopper.programs import (
    CHOSEN,
    LISTED,
    NAMES,
    PROGRAMS,
    kernel_of,
    module_of,
    text_of,
)
from tests.formatting import assert_formatted

GOLDEN = Path(__file__).parent / "golden" / "window.py.txt"

FROZEN = """attention frozen {
    heads 2
    mask causal
    schedule { block_q = 128 }
}
"""


def hopper_texts(name: str) -> tuple[str, str]:
    """The Gluon kernel and its launch alone."""
    route = possible_route(kernel_of(name))
    assert route is not None
    return emit.kernel_text(route), emit.launch_text(route)


def emit_module(kernel: Kernel, folder: Path) -> ModuleType:
    """A portable module."""
    text = triton_emit(kernel, "", kernel.attention.name)
    return import_file(Store(folder).put(text, "other", ".py"))


def test_one_kernel_is_as_it_was() -> None:
    """To accept a change: write `"\\n\\n".join(hopper_texts("window"))` to the file."""
    assert "\n\n".join(hopper_texts("window")) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", (*NAMES, *LISTED, *CHOSEN))
def test_text_is_formatted_and_the_same_each_time(name: str) -> None:
    text = text_of(name)
    assert text == text_of(name)
    assert all(part in text for part in hopper_texts(name))
    assert_formatted(text)


@pytest.mark.parametrize("name", (*NAMES, *LISTED, *CHOSEN))
def test_names_are_defined_once(name: str) -> None:
    """The kernel for Hopper shares a module with the portable ones."""
    body = ast.parse(text_of(name)).body
    names = [item.name for item in body if isinstance(item, ast.FunctionDef)]
    assert len(names) == len(set(names))


def test_the_portable_module_says_nothing_of_it() -> None:
    kernel = kernel_of("causal")
    assert "gluon" not in triton_emit(kernel, PROGRAMS["causal"], "causal")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("listed", "its tiles have no closed form"),
        ("negative", "its mask divides by a number that is no power of two"),
        ("mixed", "its tokens have an order"),
        ("sinks", "it has scores, weights, sinks, outputs or skipped heads"),
        ("blocks", "`keep` chooses which keys are seen"),
        ("slashes", "chosen diagonals and columns have loops of their own"),
        ("small_blocks", "its blocks of 64 x 128 are no whole tiles"),
        ("one_sided", "some heads have chosen blocks, and others tiles of their own"),
    ],
)
def test_programs_without_one(name: str, reason: str) -> None:
    kernel = kernel_of(name)
    assert reason in refusal(kernel)
    assert possible_route(kernel) is None


@pytest.mark.parametrize(
    ("clause", "sizes"),
    [
        ("mask full", [64, 128]),
        ("mask causal", [64, 128]),
        ("mask prefix_lm(2048)", [64, 128]),
        ("mask causal & window(1024)", [128]),
        ("mask causal & window(64)", []),
        ("mask longformer(512, 64)", []),
        ("mask local_strided(64, 16, 16)", []),
    ],
)
def test_it_is_taken_where_it_was_measured_to_be_faster(
    clause: str, sizes: list[int]
) -> None:
    text = f"attention a {{\n    heads 32\n    {clause}\n}}\n"
    kernel = driver.compile_source(Source("a.pat", text))
    route = chosen_route(kernel)
    assert sorted(route.stages if route else {}) == sizes
    told = in_words(kernel)
    assert ("a forward kernel of its own" in told) == bool(sizes)
    assert "ms against" in told


@pytest.mark.parametrize("name", LISTED)
def test_listed_tiles_are_taken_for_one_head_size(name: str) -> None:
    route = chosen_route(kernel_of(name))
    assert route is not None and list(route.stages) == [128]
    assert "listed at a call" in in_words(kernel_of(name))


@pytest.mark.parametrize("name", CHOSEN)
def test_chosen_blocks_are_taken_for_one_head_size(name: str) -> None:
    route = chosen_route(kernel_of(name))
    assert route is not None and list(route.stages) == [128]
    assert "its blocks are listed at a call" in in_words(kernel_of(name))
    assert packaged_route(kernel_of(name)) is None


def test_lists_for_other_tiles_are_those_of_a_module_with_such_tiles(
    tmp_path: Path,
) -> None:
    module = module_of("documents", tmp_path)
    other = emit_module(kernel_of("documents", Schedule(128, 128)), tmp_path)
    doc = torch.randint(0, 5, (2, 700)).sort()[0].int()
    values: dict[str, int] = {}
    call = (2, 500, 700, 200, values, {"doc": doc}, False)
    found = module.tile_lists(*call, doc.device, (128, 128))
    wanted = other.tile_lists(*call, doc.device)
    for mine, its in zip(found[:4], wanted[:4], strict=True):
        assert torch.equal(mine, its)
    # The same call on the module's own tiles is another one.
    assert len(module.tile_lists(*call, doc.device)[0]) > len(found[0])


def test_tiles_that_were_asked_for_are_kept() -> None:
    frozen = driver.compile_source(Source("frozen.pat", FROZEN))
    assert refusal(frozen) == "the schedule block in line 4 asks for tiles of its own"
    assert refusal(kernel_of("causal")) == ""


def test_larger_tiles_hide_pairs_only_where_a_second_launch_comes() -> None:
    """Tiles of 64 x 64 are FULL, and nothing would keep NaN out of larger ones."""
    text = "attention blocks {\n    heads 1\n    mask q // 64 == k // 64\n}\n"
    attention = driver.compile_source(Source("blocks.pat", text)).attention
    kernel = plan(attention, Schedule(64, 64))
    assert refusal(kernel) == "" and not hides_pairs(kernel)
    assert possible_route(kernel) is None
    assert "larger tiles are not FULL" in in_words(kernel)
    assert possible_route(plan(attention, Schedule(64, 32))) is None
    assert possible_route(plan(attention, Schedule(128, 128))) is not None


def test_a_call_without_a_hopper_gpu_takes_the_portable_kernel(tmp_path: Path) -> None:
    path = tmp_path / "window.pat"
    path.write_text(PROGRAMS["window"])
    q = torch.randn(1, 4, 70, 64)
    k, v = torch.randn(2, 1, 2, 70, 64)
    found = patternc.load(path, backend="hopper")(q, k, v)
    wanted = patternc.load(path, backend="reference")(q, k, v)
    torch.testing.assert_close(found, wanted)
    module = module_of("window", tmp_path)
    assert not module.runs_on_hopper(
        q.half(), v.half(), "descriptor", 1.0, 0, {"w": 40}
    )


def test_query_tiles_are_counted_as_the_portable_kernel_counts(tmp_path: Path) -> None:
    tiles_of = module_of("window", tmp_path).tiles_of
    for n_q, q_offset, rows in ((1, 0, 64), (64, 0, 64), (300, 700, 128), (9, -5, 64)):
        first, count = tiles_of(n_q, q_offset, rows)
        tiles = {q // rows for q in range(q_offset, q_offset + n_q)}
        assert (first, count) == (min(tiles), len(tiles))
