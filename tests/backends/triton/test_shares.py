"""Key tiles of one query tile shared by several programs: decode, chunks, and when."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc import driver
from patternc.backends.triton.emit import emit
from patternc.backends.triton.expr import PythonPrinter
from patternc.backends.triton.load import import_file
from patternc.backends.triton.ranges import box_of
from patternc.ir.nodes import HEAD, Axis, Compare, CompareOp, Const, Not
from patternc.plan.expand import count_tiles
from patternc.source import Source
from patternc.store import Store
from tests.backends.triton import data_programs
from tests.backends.triton.programs import (
    PROGRAMS,
    SMALL,
    kernel_of,
    module_of,
    text_of,
)

# The interpreter computes with numpy, which warns of what is not finite.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
]

GROUPED = """attention grouped {
    heads 8 kv 4
    input doc[k] : int sorted
    input logit[h] : float
    mask causal & doc[q] == doc[k]   for g in {0, 1}
    mask window(20)                  otherwise
    score 0.5 * s + 0.1 * (k - q)    for g in {0}
    weights sigmoid(-1.0)            for g in {1}
    skip                             for g in {2}
    sink logit[h]                    for h in {0, 6, 7}
    output 0.6 * o + 0.4 * v         for h in {1, 7}
}
"""

PLAIN = ("causal", "window", "streaming", "blind", "nothing", "listed", "mixed", "duo")
DATA = (
    "sinks",
    "outputs",
    "weights",
    "unseeing",
    "alibi",
    "prefix",
    "clusters",
    "phases",
)
N_Q, N_K = 7, 100  # rows of two query tiles


def force(patch: pytest.MonkeyPatch, module: ModuleType, splits: int) -> None:
    """Whatever the sizes of a call, so many programs share a query tile."""
    patch.setattr(module, "splits_of", lambda *sizes: splits)


def tensors(module: ModuleType, n_q: int, n_k: int, batch: int = 1) -> list[Tensor]:
    """Seeded normal q, k and v, D = 16 and D_v = 24."""
    generator = torch.Generator().manual_seed(n_q + n_k)
    shapes = [
        (batch, module.HEADS, n_q, 16),
        (batch, module.KV_HEADS, n_k, 16),
        (batch, module.KV_HEADS, n_k, 24),
    ]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def check(found: tuple[Tensor, Tensor], module: ModuleType, *call: Any) -> None:
    """As exact as twice the dense definition in float32, against it in float64."""
    own, given = call
    dense = module.reference(*own, return_lse=True, **given)
    wide = [tensor.double() for tensor in own]
    exact = module.reference(*wide, return_lse=True, **given)
    for mine, theirs, wanted in zip(found, dense, exact, strict=True):
        finite = wanted.isfinite()
        error = (theirs.double() - wanted)[finite].abs()
        budget = 2 * float(error.max()) + 1e-6 if len(error) else 0.0
        torch.testing.assert_close(
            mine.double(), wanted.double(), atol=budget, rtol=0, equal_nan=True
        )


@pytest.mark.parametrize(
    ("name", "splits"), [*((name, 4) for name in PLAIN), ("causal", 1), ("duo", 1)]
)
def test_masks(
    name: str, splits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(name, tmp_path)
    force(monkeypatch, module, splits)
    own = tensors(module, N_Q, N_K)
    for q_offset in (N_K - N_Q, -3, 93):
        given = {"q_offset": q_offset}
        found = module.forward(*own, return_lse=True, **given)
        check(found, module, own, given)


@pytest.mark.parametrize("splits", [4])
@pytest.mark.parametrize("name", DATA)
def test_data_sinks_outputs_and_orders(
    name: str, splits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = data_programs.module_of(name, tmp_path)
    force(monkeypatch, module, splits)
    n_q = 40 if name in ("clusters", "phases") else N_Q
    n_k = 40
    own = tensors(module, n_q, n_k, batch=data_programs.BATCH)
    given = data_programs.inputs_of(name, n_q, n_k, n_k - n_q)
    found = module.forward(*own, return_lse=True, **given)
    check(found, module, own, given)


def test_a_training_step_ends_its_rows_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = data_programs.module_of("sinks", tmp_path)
    own = tensors(module, N_Q, N_K)
    given = data_programs.inputs_of("sinks", N_K, N_K, N_K - N_Q)
    wanted = module.attend(*own, **given)
    force(monkeypatch, module, 4)
    found = module.attend(*own, **given)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=2e-6)
    assert not torch.equal(found[1], module.forward(*own, return_lse=True, **given)[1])


def test_hidden_values_stay_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spoiled shares are computed again before they are joined."""
    module = module_of("window", tmp_path)
    force(monkeypatch, module, 3)
    own = tensors(module, N_Q, N_K)
    own[2][0, 0, 80, 3] = torch.nan
    own[2][0, 1, 99, 5] = -torch.inf
    output = module.forward(*own)
    wanted = module.reference(*own)
    assert bool(wanted.isnan().any()) and bool((wanted == -torch.inf).any())
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("n_q", [1, 2, 5, 16])
def test_decode(n_q: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's own number of shares, on a device of 132 multiprocessors."""
    module = module_of("duo", tmp_path)
    monkeypatch.setattr(module, "multiprocessors", lambda device: 132)
    taken: list[int] = []
    splits_of = module.splits_of

    def noted(*sizes: Any) -> int:
        taken.append(splits_of(*sizes))
        return taken[-1]

    monkeypatch.setattr(module, "splits_of", noted)
    own = tensors(module, n_q, 400)
    for q_offset in (400 - n_q, 300):
        given = {"q_offset": q_offset}
        found = module.forward(*own, return_lse=True, **given)
        check(found, module, own, given)
    assert min(taken) > 1


@pytest.mark.parametrize("name", ["streaming", "mixed"])
def test_chunks_give_the_rows_of_one_call(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit where a chunk begins with a tile and is not packed."""
    module = module_of(name, tmp_path)
    q, k, v = tensors(module, 80, 80)
    given = {"return_lse": True, "q_offset": 0}
    monkeypatch.setattr(module, "is_ordered", lambda *sizes: False, raising=False)
    whole = module.forward(q, k, v, **given)
    for splits, cuts in ((1, (0, 32, 80)), (1, (0, 13, 80)), (2, (0, 70, 80))):
        force(monkeypatch, module, splits)
        for start, end in pairwise(cuts):
            part = module.forward(
                q[:, :, start:end], k, v, return_lse=True, q_offset=start
            )
            rows = [tensor[:, :, start:end] for tensor in whole]
            if splits == 1 and start % 32 == 0 and end - start > 16:
                assert all(map(torch.equal, part, rows))
            torch.testing.assert_close(part, tuple(rows), atol=2e-6, rtol=2e-6)


def test_a_call_that_fills_the_device_shares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, causal = torch.empty(0), module_of("causal", tmp_path)
    last = 3124  # of 99,999 queries
    for programs, processors, wanted in (
        (4, 132, 64),
        (5, 132, 52),  # 3125 tiles in shares of 61
        (32, 132, 8),
        (132, 132, 2),
        (133, 132, 1),
        (2, 1, 1),
    ):
        monkeypatch.setattr(causal, "multiprocessors", lambda _, n=processors: n)
        assert causal.splits_of(q, programs, last, 99_999, {}) == wanted
    window = module_of("window", tmp_path)
    monkeypatch.setattr(window, "multiprocessors", lambda device: 132)
    assert window.splits_of(q, 4, last, 99_999, {"w": 40}) == 1  # 3 tiles
    assert window.splits_of(q, 4, last, 99_999, {"w": 400}) == 3
    listed = module_of("listed", tmp_path)
    monkeypatch.setattr(listed, "multiprocessors", lambda device: 132)
    assert listed.splits_of(q, 4, last, 99_999, {"m": 900}) > 1
    assert listed.multiprocessors is not causal.multiprocessors


@pytest.mark.parametrize(
    "name", ["causal", "window", "streaming", "s2", "duo", "blind"]
)
def test_steps_are_those_of_the_plan(name: str, tmp_path: Path) -> None:
    module, kernel = module_of(name, tmp_path), kernel_of(name)
    values = {item.name: item.default or 0 for item in kernel.attention.params}
    for n_k, q_offset in ((1000, 999), (1000, 40), (33, 32), (5000, 81)):
        found = module.most_steps(q_offset // 32, n_k, values)
        counts = [
            count_tiles(kernel, cover.heads[0], 1, n_k, q_offset, values).visited
            for cover in kernel.covers
        ]
        assert found == max(counts)


def test_which_programs_pack() -> None:
    """Those that tell no head from another one that shares its keys."""
    packing = [name for name in PROGRAMS if "PACKED" in text_of(name)]
    assert packing == ["causal", "window", "streaming", "duo"]
    assert not any(
        "PACKED" in data_programs.text_of(name)
        for name in ("blocks", "alibi", "outputs", "phases")
    )


@pytest.mark.parametrize("splits", [1, 2])
def test_heads_that_share_keys_are_rows_of_one_tile(
    splits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows the sums of a row knows its head again."""
    kernel = driver.compile_source(Source("grouped.pat", GROUPED), None, {}, SMALL)
    text = emit(kernel, GROUPED, "grouped")
    module = import_file(Store(tmp_path).put(text, "grouped", ".py"))
    force(monkeypatch, module, splits)
    given = {
        "doc": torch.tensor([0] * 30 + [1] * 40),
        "logit": torch.linspace(-1, 2, 8),
    }
    programs = []
    start = module.start

    def noted(kernel: Any, count: int, *rest: Any) -> None:
        programs.append((count, rest[1]["PACKED"]))
        start(kernel, count, *rest)

    monkeypatch.setattr(module, "start", noted)
    for n_q in (5, 16, 17):
        own = tensors(module, n_q, 70, batch=2)
        q_offset = 62 if n_q == 5 else 32
        sizes = {"q_offset": q_offset, **given}
        found = module.forward(*own, return_lse=True, **sizes)
        check(found, module, own, sizes)
        packed = n_q <= 16
        heads = 4 if packed else 8
        tiles = 2 if n_q == 5 else 1
        assert programs.pop() == (tiles * heads * 2 * splits, packed)


def test_python_text_of_a_truth_value() -> None:
    printer = PythonPrinter({Axis.HEAD: "h"}, box_of(kernel_of("causal")))
    low = Not(Compare(CompareOp.LT, HEAD, Const(2)))
    assert [eval(printer.print(low), {"h": h}) for h in (1, 2)] == [False, True]


def test_sequences_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of("causal", tmp_path)
    force(monkeypatch, module, 0)  # would fail
    own = tensors(module, 40, 40, batch=2)
    output = module.forward(*own, lengths=torch.tensor([40, 9]))
    wanted = module.reference(*own)
    torch.testing.assert_close(output[0], wanted[0], atol=1e-5, rtol=1e-5)
