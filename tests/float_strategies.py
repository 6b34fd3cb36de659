"""Random calls with data, scores, weights, sinks, outputs, skipped heads and orders.

In: nothing. Out: a Hypothesis strategy for `Call`: an attention and its inputs, as
tensors with a batch axis. Not its job: masks, tables of integers and orders
(`tests.strategies`).

Expressions stay where their derivatives are moderate, so that two exact ways to
compute one of them agree closely; what is infinite outside of where it counts has
tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from patternc.ir.nodes import (
    EMPTY_PATTERN,
    HEAD,
    KEY,
    LENGTH,
    QUERY,
    Attention,
    AxisKind,
    Binary,
    Compare,
    CompareOp,
    Const,
    Element,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatOp,
    FloatRead,
    FloatSelect,
    FromInt,
    Given,
    GivenValue,
    HeadCase,
    Input,
    InputAxis,
    IntExpr,
    IntOp,
    OrderCase,
    OutputCase,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
)
from tests.strategies import BLOCK, Data, data_attentions, tables_of_length

Part = TypeVar("Part")
Case = TypeVar("Case")
Clause = TypeVar("Clause", OrderCase, ScoreCase, WeightCase, SinkCase, OutputCase)

S, O, V = (GivenValue(which) for which in Given)
BATCH = 2
PAIRS = 9

FEW = max(3, settings().max_examples // 16)
"""Examples for what runs in Triton's interpreter, which takes seconds for each."""

INPUTS = (
    Input("doc", Element.INT, (InputAxis(AxisKind.KEY),), is_sorted=True),
    Input("width", Element.INT, (InputAxis(AxisKind.KEY),)),
    Input(
        "keep",
        Element.INT,
        (
            InputAxis(AxisKind.HEAD),
            InputAxis(AxisKind.QUERY, divisor=BLOCK),
            InputAxis(AxisKind.KEY, divisor=BLOCK),
        ),
    ),
    Input("tree", Element.INT, (InputAxis(AxisKind.SIZE, size=20),) * 2),
    Input("label", Element.INT, (InputAxis(AxisKind.KEY),)),
    Input("slope", Element.FLOAT, (InputAxis(AxisKind.HEAD),)),
    Input("bias", Element.FLOAT, (InputAxis(AxisKind.KEY),)),
    Input("pair", Element.FLOAT, (InputAxis(AxisKind.SIZE, size=PAIRS),) * 2),
    Input("gate", Element.FLOAT, (InputAxis(AxisKind.QUERY), InputAxis(AxisKind.HEAD))),
    Input("level", Element.FLOAT, (InputAxis(AxisKind.BATCH),)),
)


@dataclass(frozen=True, slots=True)
class DataCall:
    """A square call of an attention; every input has a batch axis of 1 or `BATCH`."""

    attention: Attention
    inputs: dict[str, Tensor]
    length: int


@st.composite
def data_calls(draw: st.DrawFn) -> DataCall:
    """Two query heads that share a key/value head."""
    data = draw(data_attentions())
    attention = replace(data.attention, inputs=INPUTS)
    attention = replace(
        attention,
        scores=draw(_cases(scores(), lambda heads, x: ScoreCase(heads, x))),
        sinks=draw(_cases(_rows(), lambda heads, x: SinkCase(heads, x))),
        outputs=draw(_cases(_outputs(), lambda heads, x: OutputCase(heads, x))),
        weights=draw(_cases(_weights, lambda heads, x: replace(x, heads=heads))),
    )
    if draw(st.integers(0, 9)) == 0:
        attention = _skip(attention, draw(st.integers(0, 1)))
    return DataCall(attention, draw(_tensors(data)), data.length)


def _skip(attention: Attention, head: int) -> Attention:
    """The attention without one of its two heads."""
    (case,) = attention.cases
    return replace(
        attention,
        cases=(HeadCase((1 - head,), case.mask), HeadCase((head,), EMPTY_PATTERN)),
        skipped=(head,),
        orders=_without(attention.orders, head),
        scores=_without(attention.scores, head),
        weights=_without(attention.weights, head),
        sinks=_without(attention.sinks, head),
        outputs=_without(attention.outputs, head),
    )


def _without(cases: tuple[Clause, ...], head: int) -> tuple[Clause, ...]:
    """The cases without one of two heads."""
    other = 1 - head
    return tuple(replace(case, heads=(other,)) for case in cases if other in case.heads)


@st.composite
def _tensors(draw: st.DrawFn, data: Data) -> dict[str, Tensor]:
    """The tables of the data for the first element, others for the second if any."""
    length = data.length
    tables = [data.tables]
    if draw(st.booleans()):
        tables.append(draw(tables_of_length(length)))
    found = {
        name: torch.stack([torch.from_numpy(own[name]) for own in tables])
        for name in data.tables
    }
    batch = draw(st.sampled_from((1, BATCH)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shapes = {
        "slope": (2,),
        "bias": (length,),
        "pair": (PAIRS, PAIRS),
        "gate": (length, 2),
    }
    for name, shape in shapes.items():
        found[name] = torch.randn((batch, *shape), generator=generator).double()
    found["level"] = torch.randn(BATCH, generator=generator).double()
    return found


def _cases(
    parts: st.SearchStrategy[Part], make: Callable[[tuple[int, ...], Part], Case]
) -> st.SearchStrategy[tuple[Case, ...]]:
    """No case, one for some of the heads, or one for each."""
    heads = st.sampled_from(((0,), (1,), (0, 1)))
    one = st.tuples(st.builds(make, heads, parts))
    each = st.tuples(
        st.builds(make, st.just((0,)), parts), st.builds(make, st.just((1,)), parts)
    )
    return st.one_of(st.just(()), one, each)


_weights = st.one_of(
    st.just(WeightCase((), WeightKind.SOFTMAX)),
    st.floats(-2, 2).map(lambda c: WeightCase((), WeightKind.RELU2, c)),
    st.floats(-2, 2).map(lambda b: WeightCase((), WeightKind.SIGMOID, b)),
)


def _rows() -> st.SearchStrategy[FloatExpr]:
    """Expressions of a query row: of `h`, `q` and inputs."""
    leaves: list[FloatExpr] = [
        FloatRead("slope", (HEAD,)),
        FloatRead("gate", (QUERY, HEAD)),
        FloatRead("bias", (Binary(IntOp.SUB, QUERY, Const(3)),)),
        FloatRead("level", ()),
        _small(QUERY),
    ]
    return _grown(st.one_of(st.sampled_from(leaves), _numbers))


def scores() -> st.SearchStrategy[FloatExpr]:
    """Expressions of a pair, with `s` in most of them."""
    back = Binary(IntOp.SUB, QUERY, KEY)
    shifted = Binary(IntOp.ADD, Binary(IntOp.FLOORDIV, back, Const(2)), Const(4))
    leaves: list[FloatExpr] = [
        S,
        S,
        S,
        FloatRead("slope", (HEAD,)),
        FloatRead("bias", (KEY,)),
        FloatRead("pair", (shifted, Binary(IntOp.MOD, KEY, Const(PAIRS)))),
        FloatRead("pair", (shifted, Const(1))),
        FloatRead("pair", (_block(QUERY), _block(KEY))),
        FloatRead("gate", (QUERY, HEAD)),
        FloatRead("level", ()),
        _small(back),
    ]
    return _grown(st.one_of(st.sampled_from(leaves), _numbers)).map(
        lambda x: FloatBinary(FloatOp.ADD, S, x)
    )


def _block(of: IntExpr) -> IntExpr:
    return Binary(IntOp.FLOORDIV, of, Const(BLOCK))


def _outputs() -> st.SearchStrategy[FloatExpr]:
    """Expressions of an output element, with `o` and `v` in most of them."""
    leaves = st.one_of(st.sampled_from((O, O, V)), _rows())
    return _grown(leaves)


_numbers = st.floats(-2, 2).map(FloatConst)


def _small(value: IntExpr) -> FloatExpr:
    return FloatBinary(FloatOp.DIV, FromInt(value), FloatConst(32.0))


def _grown(leaves: st.SearchStrategy[FloatExpr]) -> st.SearchStrategy[FloatExpr]:
    """Larger expressions; every function stays where its derivative is moderate."""

    def grow(inner: st.SearchStrategy[FloatExpr]) -> st.SearchStrategy[FloatExpr]:
        plain = st.sampled_from(
            (
                FloatFunction.NEGATE,
                FloatFunction.ABS,
                FloatFunction.TANH,
                FloatFunction.SIGMOID,
                FloatFunction.RELU,
            )
        )
        conditions = st.sampled_from(
            (
                Compare(CompareOp.LT, QUERY, Binary(IntOp.FLOORDIV, LENGTH, Const(2))),
                Compare(CompareOp.EQ, HEAD, Const(1)),
                Compare(CompareOp.GT, Binary(IntOp.MOD, QUERY, Const(5)), Const(1)),
            )
        )
        return st.one_of(
            st.builds(FloatBinary, st.sampled_from(_MODERATE), inner, inner),
            st.builds(FloatCall, plain, inner),
            st.builds(FloatSelect, conditions, inner, inner),
            inner.map(lambda x: _call(FloatFunction.LOG, _above_one(x))),
            inner.map(lambda x: _call(FloatFunction.SQRT, _above_one(x))),
            inner.map(lambda x: _call(FloatFunction.EXP, _call(FloatFunction.TANH, x))),
            st.builds(
                lambda x, y: FloatBinary(FloatOp.DIV, x, _above_one(y)), inner, inner
            ),
        )

    return st.recursive(leaves, grow, max_leaves=4)


_MODERATE = (FloatOp.ADD, FloatOp.SUB, FloatOp.MUL, FloatOp.MIN, FloatOp.MAX)


def _call(function: FloatFunction, operand: FloatExpr) -> FloatExpr:
    return FloatCall(function, operand)


def _above_one(x: FloatExpr) -> FloatExpr:
    return FloatBinary(FloatOp.ADD, FloatConst(1.5), _call(FloatFunction.ABS, x))
