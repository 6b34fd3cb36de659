"""Gradients of elements that scores read at pairs, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc import driver
from patternc.backends.triton import load
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import TritonAttention, TritonBackend
from patternc.backends.triton.pairs import all_pair_reads
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store
from tests.backends.triton.backward_calls import Step, by_kernels, excess, step_of

BATCH = 2
DIM = 16
END = 57  # the queries of a call end here: 34 + 23
N = 60
CHUNK = (23, N, 34)
SQUARE = (N, N, 0)

PROGRAMS = {
    # Every pair an element of its own, elements of blocks, and of distances.
    "kinds": """attention kinds {
    heads 4 kv 2
    mask causal                  for h in {0, 1, 2}
    mask window(20) | k < 7      otherwise
    input bias[h, q, k] : float
    input block[h, q // 16, k // 16] : float
    input far[8, 50] : float
    score softcap(s, 4.0) * bias[h, q, k]                        for h in {0, 2}
    score s + block[h, q // 16, k // 16] + far[h, (q - k) // 2]  for h in {1}
    score s + far[q // 8 - k // 8, 3] * far[h, abs(q - 2 * k)]   for h in {3}
}
""",
    # Swin's relative positions, and distances between what data say.
    "windows": """def y(t) = t // 8
def x(t) = t % 8
attention windows {
    heads 2
    mask full
    input place[k] : int
    input rel[h, 9, 15] : float
    input near[40] : float
    input slope[h] : float
    score s + rel[h, clamp(y(q) - y(k), -4, 4) + 4, x(q) - x(k) + 7]
        + near[place[q] - place[k]] * slope[h]
}
""",
    # T5's buckets come as data; ALiBi's slopes are read at whole rows.
    "buckets": """attention buckets {
    heads 2
    mask causal & window(30)
    input bucket[200] : int
    input table[12, h] : float
    input slope[h] : float
    score s + table[bucket[q - k + 100], h] - slope[h] * (q - k)
}
""",
    "shared": """attention shared {
    heads 4 kv 1
    mask causal
    input bias[k, q] : float
    score s + bias[k, q]
}
""",
    "orders": """attention orders {
    heads 3
    mask causal & window(30) & (q - k) % 3 == 0
    order all by phase(3)                        for h in {0, 1}
    input far[h, 70] : float
    score s + far[h, q - k]                      for h in {0}
    score s * far[min(2, k), q - k]              for h in {1, 2}
}
""",
    "listed": """attention listed {
    heads 2
    input doc[k] : int sorted
    input rel[h, 60] : float
    mask causal & doc[q] == doc[k]
    score s + rel[h, q - k]
}
""",
}

SIZES = {"orders": SQUARE}


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def integers(high: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, high, shape, generator=generator).int()


INPUTS: dict[str, dict[str, Tensor]] = {
    "kinds": {
        "bias": normal(4, END, N),
        "block": normal(BATCH, 4, 4, 4),
        "far": normal(8, 50),
    },
    "windows": {
        "place": integers(60, BATCH, N),
        "rel": normal(2, 9, 15),
        "near": normal(40),
        "slope": normal(2),
    },
    "buckets": {
        "bucket": integers(14, 200),
        "table": normal(BATCH, 12, 2),
        "slope": normal(2),
    },
    "shared": {"bias": normal(N, END)},
    "orders": {"far": normal(3, 70)},
    "listed": {"doc": integers(4, BATCH, N).sort()[0], "rel": normal(2, 60)},
}


def kernel_of(name: str, block_q: int = 32, block_k: int = 32) -> Kernel:
    schedule = Schedule(block_q, block_k, warps=4, stages=2)
    return driver.compile_source(
        Source(f"{name}.pat", PROGRAMS[name]), None, {}, schedule
    )


def step_for(name: str, block_q: int = 32, block_k: int = 32) -> Step:
    size = SIZES.get(name, CHUNK)
    kernel = kernel_of(name, block_q, block_k)
    return step_of(kernel, size, INPUTS[name], BATCH, dim=DIM)


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
        ("buckets", 32, 16),
        ("shared", 32, 32),
        ("orders", 32, 32),
        ("listed", 32, 32),
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
    blocks = {
        (name, read.read.table): read.block
        for name in ("kinds", "windows", "buckets", "orders")
        for read in all_pair_reads(kernel_of(name, 32, 16))
    }
    assert blocks == {
        ("kinds", "bias"): (1, 1),
        ("kinds", "block"): (16, 16),
        ("kinds", "far"): (1, 1),
        ("windows", "rel"): (1, 1),
        ("windows", "near"): (1, 1),
        ("buckets", "table"): None,
        ("orders", "far"): (1, 1),
    }
    found = [read.block for read in all_pair_reads(kernel_of("kinds", 32, 16))]
    assert found == [(1, 1), (16, 16), None, (8, 8), (1, 1)]


def test_parts_of_the_queries_add_up_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch for each query tile and batch element, as little memory asks for."""
    step = step_for("buckets", 16, 16)
    attention = loaded(step, tmp_path)
    whole = found_by(step, attention)
    module: Any = attention.module
    assert module.parts_of(BATCH, 3, 3, True) == [(0, 3, 0, BATCH)]
    monkeypatch.setattr(module, "PAIR_BYTES", 1)
    single = [(tile, 1, b, 1) for b in range(BATCH) for tile in range(3)]
    assert module.parts_of(BATCH, 3, 3, True) == single
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
    ("windows", "entry = entry * size + place", "entry = entry + place"),
    ("windows", "+ column, pairs)", "+ column, pairs, mask=(row >= 0) & (kt > 0))"),
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
