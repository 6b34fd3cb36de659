"""The kernels of the backward pass, in Triton's interpreter, against autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from torch import Tensor

from patternc.backends.triton import backward, emit
from patternc.backends.triton.load import TritonAttention, TritonBackend
from patternc.ir.floats import scored_inputs
from patternc.ir.nodes import FULL_PATTERN, Const
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileKind
from patternc.plan.tiling import plan
from patternc.store import Store
from tests.backends.triton import data_programs, programs
from tests.backends.triton.backward_calls import (
    Step,
    by_kernels,
    excess,
    step_of,
    with_tensors,
)
from tests.float_strategies import FEW, DataCall, data_calls

NAMES = (*programs.PROGRAMS, *data_programs.PROGRAMS)
LEARNED = {
    "alibi": ("slope",),
    "clusters": ("slope",),
    "relative": ("table",),
}


def kernel_of(name: str) -> Kernel:
    if name in programs.PROGRAMS:
        return programs.kernel_of(name)
    return data_programs.kernel_of(name)


def step_for(name: str, size: tuple[int, int, int], batch: int = 2) -> Step:
    inputs = {} if name in programs.PROGRAMS else data_programs.inputs_of(name, *size)
    return step_of(kernel_of(name), size, inputs, batch)


def loaded(kernel: Kernel, folder: Path) -> TritonAttention:
    return TritonBackend(Store(folder)).load(kernel)


def size_for(name: str) -> tuple[int, int, int]:
    """Square where tiles follow an order, else a ragged chunk."""
    if name in ("scene", "axes"):
        return (data_programs.LAYOUT_SIZE,) * 2 + (0,)
    return (70, 70, 0) if name in ("phases", "clusters") else (37, 75, 20)


# The largest program takes half a minute in the interpreter; tests/gpu has it.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "scene"])
def test_gradients_are_those_of_the_definition(name: str, tmp_path: Path) -> None:
    step = step_for(name, size_for(name), 2 if name in data_programs.PROGRAMS else 1)
    mine = by_kernels(step, loaded(step.kernel, tmp_path), LEARNED.get(name, ()))
    ratios = excess(step, mine)
    assert max(ratios.values()) <= 1, ratios


@pytest.mark.parametrize(
    "size", [(1, 1, 0), (64, 64, 0), (50, 40, -10), (40, 70, -20), (20, 50, -200)]
)
def test_sizes_and_offsets(size: tuple[int, int, int], tmp_path: Path) -> None:
    step = step_for("duo", size, 1)
    ratios = excess(step, by_kernels(step, loaded(step.kernel, tmp_path)))
    assert max(ratios.values()) <= 1, ratios


def test_rows_without_keys_have_gradient_0(tmp_path: Path) -> None:
    step = step_for("blind", (100, 100, 0), 1)
    found = by_kernels(step, loaded(step.kernel, tmp_path))
    assert bool((found["q"][:, :, :30] == 0).all())
    assert bool((found["q"][:, :, 40:90].abs() > 0).any(-1).all())
    assert bool((found["k"][:, :, 80:] == 0).all())
    assert all(bool(x.isfinite().all()) for x in found.values())


@pytest.mark.parametrize("size", [(5, 0, 0), (0, 5, 5)])
def test_nothing_gives_zeros(size: tuple[int, int, int], tmp_path: Path) -> None:
    step = step_for("causal", size, 1)
    found = by_kernels(step, loaded(step.kernel, tmp_path))
    assert {name: x.shape for name, x in found.items()} == {
        "q": step.q.shape,
        "k": step.k.shape,
        "v": step.v.shape,
    }
    assert all(bool((x == 0).all()) for x in found.values())


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "one number for all": lambda x: torch.ones(()).expand_as(x),
    "heads last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "columns first": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_any_strides(view: str, tmp_path: Path) -> None:
    step = step_for("causal", (37, 45, 8), 1)
    step = with_tensors(step, d_out=VIEWS[view](step.d_out))
    if view != "one number for all":
        step = with_tensors(step, q=VIEWS[view](step.q), k=VIEWS[view](step.k))
    attention = loaded(step.kernel, tmp_path)
    out, lse = attention.attend(
        step.q, step.k, step.v, scale=0.125, q_offset=8, params={}
    )
    found = attention.gradients(
        step.q,
        step.k,
        step.v,
        out,
        lse,
        step.d_out,
        step.d_lse,
        scale=0.125,
        q_offset=8,
        params={},
    )
    ratios = excess(step, dict(zip("qkv", found[:3], strict=True)))
    assert max(ratios.values()) <= 1, ratios


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_hidden_value_that_is_not_finite_reaches_no_gradient(tmp_path: Path) -> None:
    """`v` is not finite where no query of the call looks; `k` is a product's matter."""
    step = step_for("window", (20, 70, 40), 1)
    v = step.v.clone()
    v[:, :, 61:] = torch.nan
    v[:, :, 0] = torch.inf
    v_zero = torch.where(v.isfinite(), v, 0)
    clean = by_kernels(with_tensors(step, v=v_zero), loaded(step.kernel, tmp_path))
    attention = loaded(step.kernel, tmp_path)
    out, lse = attention.attend(
        step.q, step.k, v_zero, scale=0.125, q_offset=40, params={"w": 40}
    )
    found = attention.gradients(
        step.q,
        step.k,
        v,
        out,
        lse,
        step.d_out,
        step.d_lse,
        scale=0.125,
        q_offset=40,
        params={"w": 40},
    )
    for name, x in zip("kv", found[1:3], strict=True):
        assert torch.equal(x, clean[name])
    assert torch.equal(found[0], clean["q"])


@settings(max_examples=FEW, phases=[Phase.explicit, Phase.generate])
@given(data_calls())
def test_random_calls_are_the_definition(call: DataCall) -> None:
    kernel = plan(call.attention, Schedule(16, 16))
    inputs = {
        name: x.float() if x.is_floating_point() else x
        for name, x in call.inputs.items()
    }
    step = step_of(kernel, (call.length, call.length, 0), inputs)
    attention = TritonBackend().load(kernel)
    reads = scored_inputs(call.attention)
    mine = by_kernels(step, attention, tuple(sorted(reads)))
    ratios = excess(step, mine)
    assert max(ratios.values()) <= 1, ratios


def shifted(kernel: Kernel, lo: int) -> Kernel:
    """A kernel whose first cover begins its last range at another tile."""
    cover = kernel.covers[0]
    *rest, last = cover.ranges or ()
    ranges = (*rest, replace(last, lo=Const(lo)))
    return replace(kernel, covers=(replace(cover, ranges=ranges), *kernel.covers[1:]))


def unmasked(kernel: Kernel) -> Kernel:
    """Every PARTIAL range of a kernel taken as FULL."""

    def full(part: KeyRange) -> KeyRange:
        return replace(part, kind=TileKind.FULL, residual=FULL_PATTERN)

    covers = tuple(
        replace(cover, ranges=tuple(full(part) for part in cover.ranges or ()))
        for cover in kernel.covers
    )
    return replace(kernel, covers=covers)


def swapped(kernel: Kernel) -> Kernel:
    """The covers of two head groups at each other's heads."""
    a, b = kernel.covers
    return replace(
        kernel, covers=(replace(a, heads=b.heads), replace(b, heads=a.heads))
    )


Fault = Callable[[Kernel], Kernel]
FAULTS: dict[str, tuple[str, Fault]] = {
    "a bound of the query gradient": (
        "query_gradient_text",
        lambda kernel: shifted(kernel, 1),
    ),
    "the mask of the query gradient": ("query_gradient_text", unmasked),
    "the reverse relation": (
        "key_gradient_text",
        lambda kernel: shifted(kernel, 2),
    ),
    "the mask of the key gradient": ("key_gradient_text", unmasked),
    "the head map": ("key_gradient_text", swapped),
}


@pytest.fixture
def step() -> Iterator[Step]:
    """Three query tiles by three key tiles, heads of two patterns in one kv group."""
    yield step_for("duo", (90, 90, 0), 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(
    fault: str, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change = FAULTS[fault]
    plain = getattr(backward, name)
    monkeypatch.setattr(
        backward, name, lambda kernel, *rest: plain(change(kernel), *rest)
    )
    ratios = excess(step, by_kernels(step, loaded(step.kernel, tmp_path)))
    assert max(ratios.values()) > 1


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("kv_head = h // GROUP_SIZE", "kv_head = h % (HEADS // GROUP_SIZE)"),
        ("row_lse * 1.4426950408889634", "row_lse * 1.44"),
        ("product - tl.where(is_empty, 0.0, row_d_lse)", "product"),
        ("h = part * MEMBERS + member", "h = part * MEMBERS"),
        ("dk * scale", "dk"),
    ],
)
def test_a_fault_in_the_text_is_seen(
    line: str, wrong: str, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = backward.backward_texts

    def changed(*arguments: object) -> list[str]:
        texts = plain(*arguments)  # type: ignore[arg-type]
        assert any(line in text for text in texts)
        return [text.replace(line, wrong) for text in texts]

    monkeypatch.setattr(emit, "backward_texts", changed)
    ratios = excess(step, by_kernels(step, loaded(step.kernel, tmp_path)))
    assert max(ratios.values()) > 1
