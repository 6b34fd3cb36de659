"""Verification passes what is right and finds what is wrong.

The second half puts one mistake at a time into a kernel's schedule. A mistake that
`verify` did not report would be a hole in every test that relies on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from patternc import backends
from patternc.backends.protocol import NO_INPUTS, LoadedAttention
from patternc.backends.reference import ReferenceBackend
from patternc.backends.sequences import Sequences
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import (
    FULL_PATTERN,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    IntOp,
    Param,
    RuntimeParam,
)
from patternc.ir.walk import substitute
from patternc.plan.kernel import Kernel, KeyRange, TileKind
from patternc.plan.tiling import plan
from patternc.source import NOWHERE
from patternc.verify import Quantity, Result, verify, verify_each
from tests.kernels import (
    CAUSAL,
    SMALL,
    attention_of,
    kernel_of,
    per_head,
    streaming,
    two_groups,
    window,
)

SIZES = ((1, 1), (64, 128), (113, 203), (203, 113))


def results(
    kernel: Kernel, names: tuple[str, ...] = ("tiled",), **options: object
) -> list[Result]:
    return verify(kernel, names, sizes=SIZES, batch=1, head_dim=16, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", [CAUSAL, window(40), streaming(5, 33), per_head(7)])
def test_the_backends_without_a_gpu_pass(mask: BoolExpr) -> None:
    found = results(kernel_of(mask), ("reference", "tiled"))
    assert all(result.ok for result in found)
    assert len(found) == len(SIZES) * 3 * 2 * 2
    assert {result.backend for result in found} == {"reference", "tiled"}
    assert {result.dtype for result in found} == {"float32", "float16", "bfloat16"}
    assert {result.quantity for result in found} == {Quantity.OUTPUT, Quantity.LSE}
    assert all(result.budget < 0.1 for result in found)


def test_float64_is_held_to_float64() -> None:
    found = results(kernel_of(CAUSAL), dtypes=(torch.float64,))
    assert all(result.ok and result.budget < 1e-13 for result in found)


def test_head_groups_and_run_time_parameters_pass() -> None:
    assert all(result.ok for result in results(two_groups()))
    attention = attention_of(window(Param("w")), params=(RuntimeParam("w", 9),))
    kernel = plan(attention, SMALL)
    assert all(result.ok for result in results(kernel))
    assert all(result.ok for result in results(kernel, params={"w": 30}))


def test_a_parameter_without_a_value_is_an_error() -> None:
    attention = attention_of(window(Param("w")), params=(RuntimeParam("w", None),))
    with pytest.raises(ValueError, match="no value for the parameter `w`"):
        results(plan(attention, SMALL))


def test_results_come_as_they_are_found() -> None:
    each = verify_each(kernel_of(CAUSAL), ["tiled"], sizes=((1, 1), (10**9, 10**9)))
    assert next(each).n_q == 1


# --- mistakes in the schedule -------------------------------------------------------


def changed(kernel: Kernel, number: int, part: KeyRange | None) -> Kernel:
    """The kernel with one key range of its first cover replaced, or left out."""
    cover = kernel.covers[0]
    assert cover.ranges is not None
    kept = cover.ranges[:number], cover.ranges[number + 1 :]
    ranges = kept[0] + ((part,) if part is not None else ()) + kept[1]
    covers = (replace(cover, ranges=ranges), *kernel.covers[1:])
    return replace(kernel, covers=covers)


def parts(kernel: Kernel) -> tuple[KeyRange, ...]:
    ranges = kernel.covers[0].ranges
    assert ranges is not None
    assert ranges
    return ranges


def assert_found(kernel: Kernel) -> None:
    """float32 must show it, in the output and in the LSE."""
    found = results(kernel, dtypes=(torch.float32,))
    assert not all(result.ok for result in found if result.quantity is Quantity.OUTPUT)
    assert not all(result.ok for result in found if result.quantity is Quantity.LSE)


MASKS = {"causal": CAUSAL, "window": window(40), "streaming": streaming(5, 33)}


@pytest.mark.parametrize("name", MASKS)
def test_a_window_that_is_off_by_one_is_found(name: str) -> None:
    wrong = {
        "causal": Compare(CompareOp.LT, CAUSAL.lhs, CAUSAL.rhs),
        "window": window(41),
        "streaming": streaming(5, 34),
    }
    kernel = kernel_of(MASKS[name])
    assert_found(replace(kernel, covers=kernel_of(wrong[name]).covers))


@pytest.mark.parametrize("name", MASKS)
def test_each_lost_range_is_found(name: str) -> None:
    kernel = kernel_of(MASKS[name])
    for number in range(len(parts(kernel))):
        assert_found(changed(kernel, number, None))


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("end", ["lo", "hi"])
def test_each_lost_tile_is_found(name: str, end: str) -> None:
    kernel = kernel_of(MASKS[name])
    for number, part in enumerate(parts(kernel)):
        if end == "lo":
            wrong = replace(part, lo=Binary(IntOp.ADD, part.lo, Const(part.step)))
        else:
            wrong = replace(part, hi=Binary(IntOp.SUB, part.hi, Const(1)))
        assert_found(changed(kernel, number, wrong))


@pytest.mark.parametrize("name", MASKS)
def test_each_partial_range_called_full_is_found(name: str) -> None:
    kernel = kernel_of(MASKS[name])
    numbers = [
        number
        for number, part in enumerate(parts(kernel))
        if part.kind is TileKind.PARTIAL
    ]
    assert numbers
    for number in numbers:
        wrong = replace(
            parts(kernel)[number], kind=TileKind.FULL, residual=FULL_PATTERN
        )
        assert_found(changed(kernel, number, wrong))


def test_a_tile_visited_twice_is_found() -> None:
    kernel = kernel_of(CAUSAL)
    cover = kernel.covers[0]
    assert cover.ranges is not None
    twice = replace(cover, ranges=(*cover.ranges, cover.ranges[0]))
    assert_found(replace(kernel, covers=(twice,)))


def test_swapped_heads_are_found() -> None:
    kernel = two_groups()
    first, second = kernel.covers
    swapped = replace(first, heads=second.heads), replace(second, heads=first.heads)
    assert_found(replace(kernel, covers=swapped))


def test_a_swapped_head_of_a_mask_that_reads_h_is_found() -> None:
    kernel = kernel_of(per_head(7), 2, 1)
    head_0 = kernel_of(per_head(7), 1, 1).covers[0]
    wrong = replace(head_0, heads=(0, 1))
    fixed = replace(wrong, mask=_with_head_0(wrong.mask))
    fixed = replace(fixed, ranges=None, reason="for the test")
    found = results(replace(kernel, covers=(fixed,)), dtypes=(torch.float32,))
    bad = [result for result in found if not result.ok]
    assert bad
    assert {result.head for result in bad} == {1}


def _with_head_0(mask: BoolExpr) -> BoolExpr:
    return substitute(mask, {Axis.HEAD: Const(0)})


# --- mistakes in a backend ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wrong:
    """The reference, with something done to its results."""

    name: ClassVar[str] = "wrong"
    factor: float = 1.0
    spoil: str = ""
    reason: str = ""

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        return Diagnostic("unsupported", self.reason, NOWHERE) if self.reason else None

    def load(self, kernel: Kernel) -> LoadedAttention:
        right = ReferenceBackend().load(kernel)

        def attention(
            q: Tensor,
            k: Tensor,
            v: Tensor,
            *,
            scale: float,
            q_offset: int,
            params: Mapping[str, int],
            return_lse: bool,
            inputs: Mapping[str, Tensor] = NO_INPUTS,
            sequences: Sequences | None = None,
        ) -> Tensor | tuple[Tensor, Tensor]:
            output, lse = right(
                q,
                k,
                v,
                scale=scale,
                q_offset=q_offset,
                params=params,
                return_lse=True,
            )
            if self.spoil == "nan":
                output[0, 1, -1, 0] = math.nan
            elif self.spoil == "lse":
                lse = lse * math.log2(math.e)
            elif self.spoil == "empty row":
                lse = lse.nan_to_num(neginf=0.0)
            return output * self.factor, lse

        return attention


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: Wrong) -> list[Result]:
    monkeypatch.setattr(backends, "get", lambda name: backend)
    return results(kernel_of(CAUSAL), ("wrong",))


def test_a_nan_fails_in_every_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_backend(monkeypatch, Wrong(spoil="nan"))
    outputs = [result for result in found if result.quantity is Quantity.OUTPUT]
    assert not any(result.ok for result in outputs)
    assert {result.head for result in outputs} == {1}


def test_a_small_factor_fails_in_every_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_backend(monkeypatch, Wrong(factor=1.03))
    outputs = [result for result in found if result.quantity is Quantity.OUTPUT]
    assert not any(result.ok for result in outputs)


def test_a_tiny_factor_fails_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_backend(monkeypatch, Wrong(factor=1.0001))
    outputs = [result for result in found if result.quantity is Quantity.OUTPUT]
    assert not any(result.ok for result in outputs if result.dtype == "float32")


def test_an_lse_of_base_2_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_backend(monkeypatch, Wrong(spoil="lse"))
    assert all(result.ok == (result.quantity is Quantity.OUTPUT) for result in found)


def test_an_lse_that_hides_empty_rows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_backend(monkeypatch, Wrong(spoil="empty row"))
    bad = [result for result in found if not result.ok]
    assert {(result.n_q, result.quantity) for result in bad} == {(203, Quantity.LSE)}
    assert all(result.error == math.inf for result in bad)


def test_a_refusal_is_raised_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(PatternError, match="no such thing"):
        with_backend(monkeypatch, Wrong(reason="no such thing"))
