"""Gradients of elements that scores read at pairs, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc.backends.triton import load
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import TritonAttention, TritonBackend
from patternc.backends.triton.pairs import (
    Blocks,
    Diagonals,
    Squares,
    all_pair_reads,
)
from patternc.plan.kernel import Schedule
from patternc.store import Store
from tests.backends.triton.backward_calls import Step, by_kernels, excess, step_of
from tests.backends.triton.pair_programs import (
    BATCH,
    CHUNK,
    END,
    INPUTS,
    SIZES,
    kernel_of,
)

DIM = 16
BLOCKS = Schedule(32, 16)


def step_for(name: str, block_q: int = 32, block_k: int = 32) -> Step:
    kernel = kernel_of(name, Schedule(block_q, block_k, warps=4, stages=2))
    batch = 1 if name == "kinds" else BATCH
    return step_of(kernel, SIZES.get(name, CHUNK), INPUTS[name], batch, dim=DIM)


def found_by(step: Step, attention: TritonAttention) -> dict[str, Tensor]:
    return by_kernels(step, attention, tuple(step.learned))


def loaded(step: Step, folder: Path) -> TritonAttention:
    return TritonBackend(Store(folder)).load(step.kernel)


@pytest.mark.parametrize(
    ("name", "block_q", "block_k"),
    [
        ("kinds", 32, 32),
        ("kinds", 64, 16),
        ("kinds", 16, 64),
        ("windows", 32, 32),
        ("image", 32, 16),
        ("image", 16, 32),
        ("buckets", 32, 16),
        ("shared", 32, 32),
        ("orders", 32, 32),
        ("listed", 32, 32),
        ("chosen", 32, 32),
    ],
)
def test_gradients_are_those_of_the_definition(
    name: str, block_q: int, block_k: int, tmp_path: Path
) -> None:
    step = step_for(name, block_q, block_k)
    ratios = excess(step, found_by(step, loaded(step, tmp_path)))
    assert set(ratios) == {"q", "k", "v", *step.learned}
    assert max(ratios.values()) <= 1, ratios


def test_tiles_add_up_what_reads_one_element() -> None:
    pairs = Blocks(1, 1)
    found = {
        name: [read.sums for read in all_pair_reads(kernel_of(name, BLOCKS))]
        for name in ("kinds", "windows", "image", "buckets", "orders", "coarse")
    }
    assert found == {
        "kinds": [pairs, Blocks(16, 16), Diagonals(), Blocks(8, 8), pairs],
        "windows": [Squares(8), pairs],
        "image": [Squares(16), pairs, pairs],
        "buckets": [Diagonals()],
        "orders": [pairs, pairs],
        "coarse": [Blocks(32, 16)],
    }


def test_parts_of_the_queries_add_up_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch for each query tile and batch element, as little memory asks for."""
    step = step_for("buckets", 16, 32)
    attention = loaded(step, tmp_path)
    whole = found_by(step, attention)
    module: Any = attention.module
    assert module.parts_of(BATCH, 2, 2, True) == [(0, 2, 0, BATCH)]
    monkeypatch.setattr(module, "PAIR_BYTES", 1)
    single = [(tile, 1, b, 1) for b in range(BATCH) for tile in range(2)]
    assert module.parts_of(BATCH, 2, 2, True) == single
    in_parts = found_by(step, attention)
    for name in ("q", "k", "v", "slope"):
        assert torch.equal(in_parts[name], whole[name])
    assert max(excess(step, in_parts).values()) <= 1


def test_nothing_is_stored_that_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = step_for("buckets")
    attention = loaded(step, tmp_path)
    whole = found_by(step, attention)
    module: Any = attention.module

    def refused(*_: object) -> None:
        raise AssertionError("sums of pairs were added up")

    monkeypatch.setattr(module, "add_pair_sums", refused)
    found = by_kernels(step, attention, ("slope",))
    assert torch.equal(found["slope"], whole["slope"])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_what_is_not_finite_stays_at_its_own_pairs(tmp_path: Path) -> None:
    """A hidden key that is not finite changes no bit of any element's gradient."""
    step = step_for("buckets")
    hidden = replace(step, k=step.k.clone(), v=step.v.clone())
    hidden.k[:, :, END:] = torch.nan
    hidden.v[:, :, END:] = torch.inf
    step.k[:, :, END:], step.v[:, :, END:] = 0, 0
    attention = loaded(step, tmp_path)
    clean, found = (found_by(x, attention) for x in (step, hidden))
    for name in ("q", "table", "slope"):
        assert bool(found[name].isfinite().all())
        assert torch.equal(found[name], clean[name])


FAULTS = [
    ("kinds", "(row - j) & (BLOCK_K - 1)", "(row - j + 1) & (BLOCK_K - 1)"),
    ("kinds", "local * down + (n_k", "local * down + 0 * (n_k"),
    ("kinds", "own_at * n_k_tiles + kt) *", "own_at * n_k_tiles + 0) *"),
    ("kinds", "for turn in tl.static_range(TURNS)", "for turn in tl.static_range(1)"),
    ("kinds", "* BLOCK_Q - n_k_tiles * BLOCK_K", "* BLOCK_Q - n_k_tiles * BLOCK_K + 1"),
    ("kinds", "return first_tile * BLOCK_Q + q, k", "return q, k"),
    ("kinds", "low = max(-first_q, 0)", "low = max(-first_q, 0) + 1"),
    ("image", "is_before == (turn == 0)", "is_before == (turn == 1)"),
    ("image", "- d.clamp(max=0)", "+ d.clamp(min=0)"),
    ("windows", "entry = entry * size + place", "entry = entry + place"),
    ("image", "turn * SIZE, total)", "turn * SIZE, total, mask=(at >= 0) & (kt > 0))"),
    ("windows", "shared = False", "shared = True"),
]


@pytest.mark.parametrize(("name", "line", "wrong"), FAULTS)
def test_a_fault_is_seen(
    name: str, line: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*arguments: Any) -> str:
        text = emit(*arguments)
        assert line in text
        return text.replace(line, wrong)

    monkeypatch.setattr(load, "emit", changed)
    step = step_for(name)
    ratios = excess(step, found_by(step, loaded(step, tmp_path)))
    assert max(ratios.values()) > 1
