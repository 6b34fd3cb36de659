"""Inputs, scores, weights, sinks, outputs, skipped heads and orders, tiled and dense.

The reference is held to loops over rows and to finite differences, the tiled backend to
the reference, gradients of every floating input included.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from patternc.backends import chunks
from patternc.backends.protocol import Backend
from patternc.backends.reference import ReferenceBackend
from patternc.backends.tiled import TiledBackend
from patternc.ir.nodes import (
    EMPTY_PATTERN,
    HEAD,
    KEY,
    QUERY,
    All,
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
    HeadCase,
    Input,
    InputAxis,
    IntOp,
    OrderCase,
    OutputCase,
    PhaseOrder,
    Read,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
)
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from tests.float_strategies import BATCH, DataCall, O, S, V, data_calls
from tests.kernels import BACK, CAUSAL, SMALL, attention_of
from tests.strategies import schedules

REMAINDER = Binary(IntOp.MOD, BACK, Const(4))
TOLERANCE = 1e-9


def results(backend: Backend, kernel: Kernel, call: DataCall) -> list[Tensor]:
    """Output, LSE of the softmax heads, gradients of all that is not an integer."""
    n, attention = call.length, kernel.attention
    generator = torch.Generator().manual_seed(n)
    q, k, v = (
        torch.randn(BATCH, heads, n, 4, generator=generator, dtype=torch.float64)
        for heads in (attention.heads, attention.kv_heads, attention.kv_heads)
    )
    inputs = {name: item.clone() for name, item in call.inputs.items()}
    leaves = [q, k, v, *(x for x in inputs.values() if x.is_floating_point())]
    for leaf in leaves:
        leaf.requires_grad_()
    found = backend.load(kernel)(
        q, k, v, scale=0.5, q_offset=0, params={}, return_lse=True, inputs=inputs
    )
    assert isinstance(found, tuple)
    output, lse = found
    kinds = {head: case.kind for case in attention.weights for head in case.heads}
    normalised = [
        head
        for head in range(attention.heads)
        if kinds.get(head, WeightKind.SOFTMAX) is WeightKind.SOFTMAX
    ]
    lse = lse[:, normalised]
    loss = (output * torch.arange(4.0)).sum() + lse[lse > -math.inf].sin().sum()
    torch.autograd.backward(loss)
    # What an attention does not read may have no gradient, or one of 0.
    zero = (
        torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves
    )
    return [output, lse, *zero]


def assert_agrees(call: DataCall, schedule: Schedule) -> None:
    kernel = plan(call.attention, schedule)
    found = results(TiledBackend(), kernel, call)
    expected = results(ReferenceBackend(), kernel, call)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@given(data_calls(), schedules)
def test_random_calls_with_data_are_the_reference(
    call: DataCall, schedule: Schedule
) -> None:
    assert_agrees(call, schedule)


def test_small_steps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SCORES_AT_ONCE", 64)
    monkeypatch.setattr("patternc.backends.tile_sums.SCORES_AT_ONCE", 64)
    monkeypatch.setattr(chunks, "KEPT_PAIRS", 0)
    scores, weights = (
        (ScoreCase((0, 1), ALIBI),),
        (WeightCase((3,), WeightKind.RELU2, 1.0),),
    )
    assert_agrees(data_of(packed(scores=scores, weights=weights)), SMALL)


# --- what the definition means, row by row ------------------------------------------

DOC = Input("doc", Element.INT, (InputAxis(AxisKind.KEY),))
SLOPE = Input("slope", Element.FLOAT, (InputAxis(AxisKind.HEAD),))
GATE = Input(
    "gate", Element.FLOAT, (InputAxis(AxisKind.QUERY), InputAxis(AxisKind.HEAD))
)
SAME_DOC = All(
    (CAUSAL, Compare(CompareOp.EQ, Read("doc", (QUERY,)), Read("doc", (KEY,))))
)
READ_SLOPE, READ_GATE = FloatRead("slope", (HEAD,)), FloatRead("gate", (QUERY, HEAD))
N = 20


def times(lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    return FloatBinary(FloatOp.MUL, lhs, rhs)


def plus(lhs: FloatExpr, rhs: FloatExpr) -> FloatExpr:
    return FloatBinary(FloatOp.ADD, lhs, rhs)


ALIBI = plus(S, times(READ_SLOPE, FromInt(Binary(IntOp.SUB, KEY, QUERY))))


def data_of(attention: Attention) -> DataCall:
    """Three documents in the first batch element, two in the second."""
    generator = torch.Generator().manual_seed(2)
    doc = torch.zeros(BATCH, N, dtype=torch.int32)
    doc[0, 7:], doc[0, 12:], doc[1, 10:] = 1, 2, 1
    slope = torch.rand(1, 4, generator=generator).double() / 4
    gate = torch.randn(BATCH, N, 4, generator=generator).double()
    inputs = {"doc": doc, "slope": slope, "gate": gate}
    return DataCall(attention, inputs, N)


def packed(**clauses: object) -> Attention:
    """Four heads on two key/value heads, causal within each document."""
    plain = attention_of(SAME_DOC, 4, 2)
    return replace(plain, inputs=(DOC, SLOPE, GATE), **clauses)  # type: ignore[arg-type]


def run(
    attention: Attention, backend: Backend, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Output and LSE at scale 1/2."""
    found = backend.load(plan(attention, SMALL))(
        q,
        k,
        v,
        scale=0.5,
        q_offset=k.shape[2] - q.shape[2],
        params={},
        return_lse=True,
        inputs=data_of(attention).inputs,
    )
    assert isinstance(found, tuple)
    return found


def tensors(heads: int = 4, kv: int = 2, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    shapes = ((BATCH, heads, n, 4), (BATCH, kv, n, 4), (BATCH, kv, n, 4))
    q, k, v = (torch.randn(s, generator=generator).double() for s in shapes)
    return q, k, v


def test_scores_sinks_and_gates_are_what_a_loop_over_rows_gives() -> None:
    attention = packed(
        scores=(ScoreCase((0, 1, 2), ALIBI),),
        sinks=(SinkCase((1, 2), READ_SLOPE),),
        outputs=(OutputCase((2, 3), plus(times(READ_GATE, O), V)),),
    )
    q, k, v = tensors()
    output, lse = run(attention, ReferenceBackend(), q, k, v)
    inputs = data_of(attention).inputs
    for b, h, row in itertools.product(range(BATCH), range(4), range(N)):
        doc, slope = inputs["doc"][b], inputs["slope"][0, h]
        keys = [key for key in range(row + 1) if doc[key] == doc[row]]
        s = torch.stack([q[b, h, row] @ k[b, h // 2, key] * 0.5 for key in keys])
        if h < 3:
            s = s + slope * (torch.tensor(keys) - row)
        weights = s.exp()
        total = weights.sum() + (slope.exp() if h in (1, 2) else 0)
        expected = weights / total @ v[b, h // 2, keys]
        if h >= 2:
            expected = inputs["gate"][b, row, h] * expected + v[b, h // 2, row]
        torch.testing.assert_close(output[b, h, row], expected)
        torch.testing.assert_close(lse[b, h, row], total.log())


def test_weights_without_a_sum_are_what_a_loop_over_rows_gives() -> None:
    kinds = (
        WeightCase((0,), WeightKind.RELU2, 0.7),
        WeightCase((1,), WeightKind.SIGMOID, -0.3),
        WeightCase((2,), WeightKind.RELU2, -2.0),
    )
    attention = packed(weights=kinds, scores=(ScoreCase((1, 2), ALIBI),))
    q, k, v = tensors()
    output, lse = run(attention, ReferenceBackend(), q, k, v)
    inputs = data_of(attention).inputs
    for b, h, row in itertools.product(range(BATCH), range(3), range(N)):
        doc, slope = inputs["doc"][b], inputs["slope"][0, h]
        keys = [key for key in range(row + 1) if doc[key] == doc[row]]
        s = torch.stack([q[b, h, row] @ k[b, h // 2, key] * 0.5 for key in keys])
        if h:
            s = s + slope * (torch.tensor(keys) - row)
        weights = {
            0: (0.7 * s).clamp(min=0) ** 2,
            1: 1 / (1 + (0.3 - s).exp()),
            2: (-2 * s).clamp(min=0) ** 2,
        }[h]
        torch.testing.assert_close(output[b, h, row], weights @ v[b, h // 2, keys])
    assert lse[:, :3].isnan().all()
    assert lse[:, 3].isfinite().all()


@pytest.mark.parametrize("backend", [ReferenceBackend(), TiledBackend()])
def test_a_row_without_keys_gives_0_and_its_sink(backend: Backend) -> None:
    ahead = Compare(CompareOp.LT, KEY, Binary(IntOp.SUB, QUERY, Const(5)))
    attention = replace(
        attention_of(ahead, 4, 2),
        inputs=(SLOPE,),
        sinks=(SinkCase((1, 2), READ_SLOPE),),
    )
    q, k, v = (x.requires_grad_() for x in tensors())
    output, lse = run(attention, backend, q, k, v)
    slope = data_of(attention).inputs["slope"][0]
    assert (output[:, :, :6] == 0).all()
    assert (output[:, :, 6:] != 0).all()
    torch.testing.assert_close(lse[:, 1:3, :6], slope[None, 1:3, None].expand(2, 2, 6))
    assert (lse[:, [0, 3], :6] == -math.inf).all()
    torch.autograd.backward(output.sum() + lse[:, 1:3].sum())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("backend", [ReferenceBackend(), TiledBackend()])
def test_a_score_counts_only_where_a_pair_is_visible(backend: Backend) -> None:
    """`s + log(q - k + 1)` has no value ahead of the query; a NaN key spreads not."""
    distance = FromInt(Binary(IntOp.ADD, Binary(IntOp.SUB, QUERY, KEY), Const(1)))
    score = plus(S, FloatCall(FloatFunction.LOG, distance))
    attention = replace(attention_of(CAUSAL, 4, 2), scores=(ScoreCase((0, 1), score),))
    q, k, v = (x.requires_grad_() for x in tensors())
    output, lse = run(attention, backend, q, k, v)
    assert output.isfinite().all()
    torch.autograd.backward(output.sum() + lse.sum())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))
    with torch.no_grad():
        k[:, :, -1] = math.nan
        spoilt, _ = run(attention, backend, q, k, v)
    torch.testing.assert_close(spoilt[:, :, :-1], output[:, :, :-1])
    assert spoilt[:, :, -1].isnan().all()


@pytest.mark.parametrize("backend", [ReferenceBackend(), TiledBackend()])
def test_a_score_of_minus_infinity_hides_a_pair(backend: Backend) -> None:
    """`where(q < 4, log(0), s)`: the first four rows see nothing."""
    never = FloatCall(FloatFunction.LOG, FloatConst(0.0))
    early = Compare(CompareOp.LT, QUERY, Const(4))
    score = FloatSelect(early, never, S)
    attention = replace(
        attention_of(CAUSAL, 4, 2), scores=(ScoreCase((0, 1, 2, 3), score),)
    )
    q, k, v = (x.requires_grad_() for x in tensors())
    output, lse = run(attention, backend, q, k, v)
    assert (output[:, :, :4] == 0).all()
    assert (lse[:, :, :4] == -math.inf).all()
    assert lse[:, :, 4:].isfinite().all()
    torch.autograd.backward(output.sum())
    assert q.grad is not None
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("backend", [ReferenceBackend(), TiledBackend()])
def test_gradients_are_those_of_finite_differences(backend: Backend) -> None:
    attention = packed(
        scores=(ScoreCase((0, 1), ALIBI),),
        sinks=(SinkCase((1,), READ_SLOPE),),
        weights=(WeightCase((3,), WeightKind.SIGMOID, 0.5),),
        outputs=(OutputCase((0, 3), plus(times(READ_GATE, O), V)),),
    )
    loaded = backend.load(plan(attention, SMALL))
    inputs = data_of(attention).inputs
    short = {"doc": inputs["doc"][:, 4:9], "gate": inputs["gate"][:, :5]}
    leaves = (*tensors(n=5), short.pop("gate"), inputs["slope"])
    tracked = tuple(x.clone().requires_grad_() for x in leaves)

    def both(
        q: Tensor, k: Tensor, v: Tensor, gate: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = {**short, "gate": gate, "slope": slope}
        found = loaded(
            q, k, v, scale=0.5, q_offset=0, params={}, return_lse=True, inputs=own
        )
        assert isinstance(found, tuple)
        return found[0], found[1][:, :3]

    assert torch.autograd.gradcheck(both, tracked)


# --- what the tiled backend does not compute ----------------------------------------


def test_a_skipped_head_costs_nothing() -> None:
    case = HeadCase((0, 2), CAUSAL)
    attention = Attention(
        "example", 3, 1, (), (case, HeadCase((1,), EMPTY_PATTERN)), skipped=(1,)
    )
    kernel = plan(attention, SMALL)
    call = chunks.Call(BATCH, N, N, 0, (), torch.device("cpu"))
    groups = chunks.groups_of(kernel, call)
    assert {group.heads: bool(group.chunks) for group in groups} == {
        (0, 2): True,
        (1,): False,
    }
    for backend in (TiledBackend(), ReferenceBackend()):
        output, lse = run(attention, backend, *tensors(3, 1))
        assert (output[:, 1] == 0).all()
        assert (lse[:, 1] == -math.inf).all()
        assert lse[:, [0, 2]].isfinite().all()


def test_documents_cost_their_own_tiles_in_each_batch_element() -> None:
    kernel = plan(attention_of(SAME_DOC, 2, 1), SMALL)
    one, two = np.zeros(256, np.int64), np.arange(256) // 64
    call = chunks.Call(2, 256, 256, 0, (), torch.device("cpu"), frozenset({"doc"}))
    groups = chunks.groups_of(kernel, call, ({"doc": one}, {"doc": two}))
    pairs = {
        group.elements: sum(c.rows.numel() * c.keys.shape[1] for c in group.chunks)
        for group in groups
    }
    tiles = 256 // 16
    assert pairs[range(1)] == 16 * 16 * tiles * (tiles + 1) // 2
    assert pairs[range(1, 2)] == 4 * 16 * 16 * (4 * 5 // 2)


def test_heads_that_differ_in_score_alone_are_computed_apart() -> None:
    attention = packed(scores=(ScoreCase((0, 3), ALIBI),))
    call = chunks.Call(1, N, N, 0, (), torch.device("cpu"))
    tables = ({"doc": np.zeros(N, np.int64)},)
    groups = chunks.groups_of(plan(attention, SMALL), call, tables)
    assert sorted(group.heads for group in groups) == [(0, 3), (1, 2)]


def test_the_cache_knows_what_the_inputs_held() -> None:
    """Also if the caller writes into the same tensor."""
    attention = packed()
    loaded = TiledBackend().load(plan(attention, SMALL))
    inputs = data_of(attention).inputs
    q, k, v = tensors()

    def call() -> Tensor:
        found = loaded(
            q, k, v, scale=0.5, q_offset=0, params={}, return_lse=False, inputs=inputs
        )
        assert isinstance(found, Tensor)
        return found

    before = call()
    torch.testing.assert_close(call(), before)
    assert len(loaded.cache.kept) == 1
    inputs["doc"].zero_()
    after = call()
    assert len(loaded.cache.kept) == 2
    assert not torch.allclose(after, before)
    inputs["doc"].copy_(data_of(attention).inputs["doc"])
    torch.testing.assert_close(call(), before)
    assert len(loaded.cache.kept) == 2


def test_orders_are_for_square_calls_and_change_no_result() -> None:
    order = OrderCase((0, 1), None, PhaseOrder(4))
    dilated = All((CAUSAL, Compare(CompareOp.EQ, REMAINDER, Const(0))))
    plain = attention_of(dilated, 2, 1)
    ordered = replace(plain, orders=(order,))
    kernel = plan(ordered, SMALL)
    call = chunks.Call(1, 256, 256, 0, (), torch.device("cpu"))
    cost = [
        sum(c.rows.numel() * c.keys.shape[1] for g in groups for c in g.chunks)
        for groups in (
            chunks.groups_of(plan(plain, SMALL), call),
            chunks.groups_of(kernel, call),
        )
    ]
    assert cost[1] < cost[0] / 3
    for n_q in (N, 7):
        q, k, v = tensors(2, 1)
        q = q[:, :, :n_q]
        found = run(ordered, TiledBackend(), q, k, v)
        expected = run(plain, ReferenceBackend(), q, k, v)
        torch.testing.assert_close(found, expected)
