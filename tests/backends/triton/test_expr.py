"""The printed text of an expression has the value of `ir.evaluate`."""

from __future__ import annotations

import textwrap
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patternc.analysis.interval import Bounds, Box, possible
from patternc.backends.triton.bounds import BoundsPrinter
from patternc.backends.triton.expr import (
    LIMIT,
    Printer,
    TorchPrinter,
    kernel_box,
    needs_64_bits,
)
from patternc.backends.triton.template import fill
from patternc.ir.evaluate import Ints, Point, evaluate
from patternc.ir.nodes import (
    KEY,
    QUERY,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    IntOp,
)
from tests.strategies import PARAM, masks

NAMES = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "n_k"}
HEADS = 6
BOX = kernel_box(HEADS, 16, 16, (PARAM,))
Q = np.arange(-60, 200, 7, dtype=np.int64)[:, None]
K = np.arange(0, 150, 5, dtype=np.int64)[None, :]
any_mask = st.booleans().flatmap(lambda affine: masks(affine=affine, runtime=True))


class Truncating(np.ndarray[Any, Any]):
    """Integers that divide as the GPU does, towards zero."""

    def __floordiv__(self, other: Any) -> Any:
        divisor = np.asarray(other)
        quotient = np.asarray(abs(np.asarray(self)) // abs(divisor))
        sign = np.sign(np.asarray(self)) * np.sign(divisor)
        return (quotient * sign).view(Truncating)

    def __mod__(self, other: Any) -> Any:
        return self - (self // other) * other

    def to(self, dtype: object) -> Truncating:
        return self.astype(np.int64).view(Truncating)


def device_integers(value: int | np.ndarray[Any, Any]) -> Truncating:
    return np.asarray(value, dtype=np.int64).view(Truncating)


def point(head: int, n_k: int, width: int) -> Point:
    """All positions of one head."""
    axes: dict[Axis, int | Ints] = {Axis.QUERY: Q, Axis.KEY: K}
    return Point({**axes, Axis.HEAD: head, Axis.LENGTH: n_k}, {PARAM: width})


def triton_names() -> dict[str, Any]:
    """What stands for Triton in printed text, and the module's own floor helpers."""
    language = SimpleNamespace(
        minimum=np.minimum, maximum=np.maximum, abs=np.abs, int64=None, where=np.where
    )
    language.where = lambda c, a, b: np.where(c, a, b).view(Truncating)
    names: dict[str, Any] = {"tl": language}
    exec(fill("floor").replace("@triton.jit\n", ""), names)  # noqa: S102
    return names


def run(lines: list[str], names: dict[str, Any], result: str) -> Any:
    assert all(len(line) <= 88 for line in lines)
    exec(textwrap.dedent("\n".join(lines)), names)  # noqa: S102
    return names[result]


@given(any_mask, st.integers(0, HEADS - 1), st.integers(0, 150), st.integers(-9, 60))
def test_triton_text(mask: BoolExpr, head: int, n_k: int, width: int) -> None:
    try:
        wanted = evaluate(mask, point(head, n_k, width))
    except (ZeroDivisionError, RuntimeWarning):
        return
    names = triton_names()
    values: dict[str, int | Ints] = {
        "q": Q,
        "k": K,
        "h": head,
        "n_k": n_k,
        f"p_{PARAM}": width,
    }
    names.update({name: device_integers(value) for name, value in values.items()})
    lines = Printer(NAMES, BOX).assign("keep", mask, 0)
    assert np.array_equal(
        np.broadcast_to(run(lines, names, "keep"), wanted.shape), wanted
    )


@given(any_mask, st.integers(0, HEADS - 1), st.integers(0, 150), st.integers(-9, 60))
def test_torch_text(mask: BoolExpr, head: int, n_k: int, width: int) -> None:
    try:
        wanted = evaluate(mask, point(head, n_k, width))
    except (ZeroDivisionError, RuntimeWarning):
        return
    values: dict[str, int | Ints] = {
        "q": Q,
        "k": K,
        "h": head,
        "n_k": n_k,
        f"p_{PARAM}": width,
    }
    names: dict[str, Any] = {name: torch.tensor(v) for name, v in values.items()}
    names["torch"] = torch
    found = run(TorchPrinter(NAMES, BOX).assign("keep", mask, 0), names, "keep")
    assert np.array_equal(found.expand(wanted.shape).numpy(), wanted)


@given(
    masks(affine=False, runtime=True),
    st.integers(0, HEADS - 1),
    st.lists(st.integers(-40, 90), min_size=4, max_size=4),
    st.integers(1, 40),
)
def test_interval_text(mask: BoolExpr, head: int, ends: list[int], width: int) -> None:
    q, k = sorted(ends[:2]), sorted(abs(end) for end in ends[2:])

    def between(lo: int, hi: int) -> Bounds:
        return Bounds(np.asarray(lo), np.asarray(hi))

    axes = {
        Axis.QUERY: between(*q),
        Axis.KEY: between(*k),
        Axis.HEAD: between(head, head),
        Axis.LENGTH: between(90, 90),
    }
    try:
        wanted = possible(mask, Box(axes, {PARAM: between(width, width)}))
    except (ZeroDivisionError, RuntimeWarning):
        return
    names: dict[str, Any] = {"torch": torch}
    exec(fill("lists"), names)  # noqa: S102
    exactly = names["exactly"]
    names["q"], names["k"] = (tuple(map(torch.tensor, ends)) for ends in (q, k))
    names["h"], names["n_k"] = exactly(head), exactly(90)
    names[f"p_{PARAM}"] = exactly(width)
    found = run(BoundsPrinter(NAMES, BOX).assign("seen", mask, 0), names, "seen")
    assert (bool(found[0]), bool(found[1])) == (bool(wanted.true), bool(wanted.false))


def _compare(op: IntOp, lhs: object, rhs: object) -> Compare:
    return Compare(CompareOp.EQ, Binary(op, lhs, rhs), Const(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (_compare(IntOp.MOD, QUERY, Const(8)), "(q & 7) == 1"),
        (_compare(IntOp.FLOORDIV, QUERY, Const(64)), "(q >> 6) == 1"),
        (_compare(IntOp.MOD, KEY, Const(7)), "k % 7 == 1"),
        (_compare(IntOp.MOD, QUERY, Const(7)), "floor_mod(q, 7) == 1"),
        (_compare(IntOp.ADD, QUERY, Const(-3)), "q - 3 == 1"),
        (_compare(IntOp.MUL, KEY, Const(3)), "k.to(tl.int64) * 3 == 1"),
        (_compare(IntOp.ADD, Const(2), Const(-1)), "h >= 0"),
    ],
)
def test_text_is_as_one_would_write_it(expr: Compare, text: str) -> None:
    assert Printer(NAMES, BOX).print(expr) == text


def test_width_follows_from_the_limits() -> None:
    assert not needs_64_bits(Binary(IntOp.SUB, QUERY, KEY), BOX)
    assert needs_64_bits(Binary(IntOp.MUL, KEY, Const(2)), BOX)  # 2**31 does not fit
    assert not needs_64_bits(Binary(IntOp.SUB, Const(LIMIT), KEY), BOX)
