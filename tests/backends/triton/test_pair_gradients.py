"""Gradients of elements that scores read at pairs, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
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
from patternc.ir.evaluate import Point, evaluate_int
from patternc.ir.nodes import (
    HEAD,
    KEY,
    QUERY,
    Abs,
    Axis,
    Binary,
    Const,
    FloatBinary,
    FloatOp,
    FloatRead,
    Given,
    GivenValue,
    Index,
    IntExpr,
    IntOp,
    ScoreCase,
)
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from patternc.store import Store
from patternc.verify_gradients import refusals, verify_gradients
from tests.backends.triton.backward_calls import Step, by_kernels, excess, step_of
from tests.backends.triton.pair_programs import (
    BATCH,
    CHUNK,
    END,
    INPUTS,
    SIZES,
    kernel_of,
    text_of,
)
from tests.float_strategies import FEW
from tests.formatting import assert_formatted

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


@pytest.mark.parametrize("name", ["kinds", "coarse", "single", "orders", "buckets"])
def test_text_is_formatted(name: str) -> None:
    assert_formatted(text_of(name))


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


def test_verify_compares_them() -> None:
    kernel = kernel_of("t5")
    assert refusals(kernel, "triton") == refusals(kernel, "tiled") == []
    dtypes = (torch.float32, torch.float16)
    found = verify_gradients(
        kernel, ["triton"], dtypes=dtypes, sizes=((20, 40),), head_dim=16, batch=1
    )
    assert {result.of for result in found} == {"q", "k", "v", "rel"}
    assert [result for result in found if not result.ok] == []


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


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_rows_that_are_none_add_nothing(tmp_path: Path) -> None:
    """With nothing hidden there is no second launch, and 0 * inf is NaN."""
    step = step_for("image")
    attention = loaded(step, tmp_path)
    step.q[..., 0] = step.q[..., 0].abs() + 1
    step.k[:, :, 3, 0] = -torch.inf  # every logit of this key is -inf
    assert step.q.shape[2] % attention.kernel.schedule.block_q
    assert bool(found_by(step, attention)["near"].isfinite().all())


def _places(token: Index) -> list[IntExpr]:
    """The token, and parts of it that are alike in squares of 8 or 16."""
    sixteen, moved = Const(16), Binary(IntOp.ADD, token, Const(-32))
    row = Binary(IntOp.FLOORDIV, moved, sixteen)
    return [
        token,
        Binary(IntOp.FLOORDIV, token, sixteen),
        Binary(IntOp.MOD, token, sixteen),
        Binary(IntOp.MOD, row, Const(3)),
        Binary(IntOp.FLOORDIV, Binary(IntOp.MOD, token, Const(24)), Const(8)),
        Binary(IntOp.FLOORDIV, Binary(IntOp.ADD, token, Const(5)), sixteen),
    ]


_apart = st.sampled_from([*zip(_places(QUERY), _places(KEY), strict=True)]).map(
    lambda pair: Binary(IntOp.SUB, *pair)
)
_leaves = st.one_of(
    _apart, _apart, st.sampled_from([*_places(QUERY), *_places(KEY), HEAD])
)


def _grown(inner: st.SearchStrategy[IntExpr]) -> st.SearchStrategy[IntExpr]:
    small = st.integers(2, 9).map(Const)
    both = st.sampled_from((IntOp.ADD, IntOp.SUB, IntOp.MUL, IntOp.MAX))
    one = st.sampled_from((IntOp.FLOORDIV, IntOp.MOD, IntOp.MIN, IntOp.MUL))
    return st.one_of(
        st.builds(Binary, one, inner, small),
        st.builds(Binary, both, inner, inner),
        inner.map(Abs),
    )


indices = st.recursive(_leaves, _grown, max_leaves=3)
blocks_of = st.sampled_from([Schedule(*sizes) for sizes in ((16, 16), (32, 16))])


def _with_score(indices: tuple[IntExpr, ...], schedule: Schedule) -> Kernel:
    """A kernel with a score that adds `rel` at these indices."""
    attention = kernel_of("single", schedule).attention
    read = FloatRead("rel", indices)
    score = FloatBinary(FloatOp.ADD, GivenValue(Given.SCORE), read)
    case = ScoreCase(tuple(range(attention.heads)), score, attention.span)
    return plan(replace(attention, scores=(case,)), schedule)


@given(indices, blocks_of)
def test_what_is_added_up_reads_one_element(index: IntExpr, schedule: Schedule) -> None:
    kernel = _with_score((index, Const(0)), schedule)
    for own in all_pair_reads(kernel):
        q, k = np.mgrid[-32:64, 0:96]
        where = {Axis.QUERY: q, Axis.KEY: k, Axis.HEAD: 2}
        element = np.broadcast_to(evaluate_int(index, Point(where)), q.shape)
        match own.sums:
            case Diagonals():
                alike = [q - k]
            case Squares(size):
                alike = [q - k, q // size, k // size]
            case Blocks(queries, keys):
                alike = [q // queries, k // keys]
        groups = np.unique(np.stack(alike).reshape(len(alike), -1), axis=1)
        both = np.stack([*alike, element]).reshape(len(alike) + 1, -1)
        assert groups.shape[1] == np.unique(both, axis=1).shape[1], own.sums


@settings(max_examples=FEW, phases=[Phase.explicit, Phase.generate])
@given(st.tuples(indices, indices), blocks_of)
def test_random_indices(found: tuple[IntExpr, ...], schedule: Schedule) -> None:
    inside = tuple(Binary(IntOp.MOD, index, Const(15)) for index in found)
    step = step_of(_with_score(inside, schedule), CHUNK, INPUTS["single"], 1, dim=DIM)
    ratios = excess(step, found_by(step, TritonBackend().load(step.kernel)))
    assert max(ratios.values()) <= 1, ratios


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
