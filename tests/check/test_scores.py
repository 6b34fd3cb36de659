"""Scores, weights, sinks and outputs as floating expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from patternc.check import lower
from patternc.diagnostics import PatternError
from patternc.ir.evaluate import Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    Attention,
    Axis,
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
    WeightCase,
    WeightKind,
)
from patternc.ir.text import print_float
from patternc.source import Source
from patternc.syntax.parse import parse

Floats = NDArray[np.float64]

LAYOUT = "layout scene = text[2] + image[y = 2, x = 3]\n"
INPUTS = (
    "input slope[h] : float input bias[k] : float input rel[9] : float"
    " input label[k] : int input gate[q, h] : float"
)


def run(clauses: str, parameters: str = "", **values: float) -> Attention:
    body = f"heads 4 layout scene {INPUTS} mask full {clauses}"
    return lower(
        parse(Source("x.pat", f"{LAYOUT}attention a{parameters} {{ {body} }}")),
        None,
        values,
    )


def score(text: str, parameters: str = "", **values: float) -> FloatExpr:
    (case,) = run(f"score {text}", parameters, **values).scores
    assert case.heads == (0, 1, 2, 3)
    return case.score


TABLES = {
    "slope": np.array([0.5, 0.25, 2.0, -1.0]),
    "bias": np.linspace(-1, 1, 8),
    "rel": np.arange(9) / 3,
    "label": np.array([0, 3, 8, 9, -1, 2, 2, 7]),
    "gate": np.arange(32.0).reshape(8, 4),
}
S = np.linspace(-3, 3, 64).reshape(8, 8)
Q, K = np.arange(8)[:, None], np.arange(8)[None, :]
_UNARY: dict[FloatFunction, Callable[[Floats], Floats]] = {
    FloatFunction.NEGATE: np.negative,
    FloatFunction.ABS: np.abs,
    FloatFunction.EXP: np.exp,
    FloatFunction.LOG: np.log,
    FloatFunction.TANH: np.tanh,
    FloatFunction.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
    FloatFunction.SQRT: np.sqrt,
    FloatFunction.RELU: lambda x: np.maximum(x, 0),
}
_BINARY: dict[FloatOp, Callable[[Floats, Floats], Floats]] = {
    FloatOp.ADD: np.add,
    FloatOp.SUB: np.subtract,
    FloatOp.MUL: np.multiply,
    FloatOp.DIV: np.divide,
    FloatOp.MIN: np.minimum,
    FloatOp.MAX: np.maximum,
}


def value(
    expr: FloatExpr, head: int = 0, given: Mapping[Given, Floats] | None = None
) -> Floats:
    """The value on the grid of 8 x 8 pairs, node by node."""
    known = {Given.SCORE: S} if given is None else given
    at = Point(
        {Axis.QUERY: Q, Axis.KEY: K, Axis.HEAD: head, Axis.LENGTH: 8}, {"n": 3}, TABLES
    )
    match expr:
        case FloatConst():
            return np.asarray(expr.value)
        case GivenValue():
            return known[expr.which]
        case FromInt():
            return evaluate_int(expr.operand, at).astype(float)
        case FloatRead():
            table = TABLES[expr.table]
            indices = [evaluate_int(index, at) for index in expr.indices]
            inside = np.asarray(True)
            for index, size in zip(indices, table.shape, strict=True):
                inside = inside & (index >= 0) & (index < size)
            return np.where(
                inside, table[tuple(np.where(inside, i, 0) for i in indices)], 0
            )
        case FloatBinary():
            lhs, rhs = value(expr.lhs, head, given), value(expr.rhs, head, given)
            return _BINARY[expr.op](lhs, rhs)
        case FloatCall():
            return _UNARY[expr.function](value(expr.operand, head, given))
        case FloatSelect():
            then, rest = (
                value(expr.then, head, given),
                value(expr.otherwise, head, given),
            )
            return np.where(evaluate(expr.condition, at), then, rest)


def same(text: str, expected: Floats, head: int = 0, parameters: str = "") -> None:
    found = np.broadcast_to(value(score(text, parameters), head), (8, 8))
    np.testing.assert_allclose(found, np.broadcast_to(expected, (8, 8)), rtol=1e-12)


def test_alibi_with_a_soft_cap() -> None:
    bent = 50 * np.tanh(S / 50)
    for head in range(4):
        expected = bent + TABLES["slope"][head] * (K - Q)
        same("softcap(s, 50.0) + slope[h] * (k - q)", expected, head)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s", S),
        ("-s / 2", -S / 2),
        ("s * 0.5 - 1", S * 0.5 - 1),
        ("s + 2 * abs(s)", S + 2 * np.abs(S)),
        (
            "exp(s) + tanh(s) + sigmoid(s) + relu(s)",
            np.exp(S) + np.tanh(S) + 1 / (1 + np.exp(-S)) + np.maximum(S, 0),
        ),
        ("log(1 + abs(k - q)) + sqrt(k)", np.log(1 + np.abs(K - Q)) + np.sqrt(K)),
        (
            "min(s, 0.5, k) + max(s, -1)",
            np.minimum(np.minimum(S, 0.5), K) + np.maximum(S, -1),
        ),
        ("clamp(s, -1, 1.5)", np.clip(S, -1, 1.5)),
        (
            "where(k <= q & q - k < 3, s, -1.5)",
            np.where((K <= Q) & (Q - K < 3), S, -1.5),
        ),
        ("where(window(3), s, 0)", np.where((K <= Q) & (Q - K < 3), S, 0)),
        ("s + bias[k]", S + TABLES["bias"][K]),
        ("s + (7 // 2) * q % 3 / 4", S + 3 * Q % 3 / 4),
        ("s + n", S + 3),
        ("s + N", S + 8),
        ("abs(q - k) + 0.5", np.abs(Q - K) + 0.5),
    ],
)
def test_scores(text: str, expected: Floats) -> None:
    same(text, expected, parameters="(n: runtime = 3)")


def test_integers_stay_integers_as_far_as_they_go() -> None:
    expr = score("0.5 * (k - q) * 3 + min(k, q) // 2")
    assert print_float(expr) == "0.5 * (k - q) * 3.0 + min(k, q) // 2"
    assert isinstance(expr, FloatBinary)
    assert isinstance(expr.rhs, FromInt)


def test_constants_are_folded() -> None:
    assert score("(1 - u) * s + -u", "(u = 0.4)") == FloatBinary(
        FloatOp.ADD,
        FloatBinary(FloatOp.MUL, FloatConst(0.6), GivenValue(Given.SCORE)),
        FloatConst(-0.4),
    )
    assert score("2 * s", u=0.5, parameters="(u: float)") == score("t * s", "(t = 2)")
    with pytest.raises(PatternError, match="not finite"):
        score(" * ".join(["1000000000000000000000000000.0"] * 12) + " * s")


def test_a_float_read_outside_of_its_axis_is_zero() -> None:
    distance = Q - K + 4
    inside = (distance >= 0) & (distance < 9)
    rel = np.where(inside, TABLES["rel"][np.clip(distance, 0, 8)], 0)
    same("s + rel[q - k + 4]", S + rel)
    assert print_float(score("rel[q - k + 4]")) == "rel[q - k + 4]"


def test_an_index_that_means_nothing_reads_zero() -> None:
    label = TABLES["label"]
    chosen = np.where(
        (label >= 0) & (label < 9), TABLES["rel"][np.clip(label, 0, 8)], 0
    )
    same("rel[label[k]]", np.broadcast_to(chosen[None, :], (8, 8)))
    shifted = np.where(K + 3 < 8, TABLES["rel"][label[np.clip(K + 3, 0, 7)] % 9], 0)
    same("rel[label[k + 3] % 9]", shifted)


def test_a_coordinate_outside_of_its_segment_counts_as_zero() -> None:
    x = np.array([0, 0, 0, 1, 2, 0, 1, 2])
    inside = (np.arange(8) >= 2)[:, None] & (np.arange(8) >= 2)[None, :]
    expected = np.where(inside, x[:, None] - x[None, :] + 1, 0)
    same("s + 0.5 * (q.x - k.x + 1)", S + 0.5 * expected)


def test_inputs_over_queries_have_one_place() -> None:
    same("s * gate[q, h]", S * TABLES["gate"][:, 2][:, None], 2)
    with pytest.raises(PatternError, match="declared over queries"):
        score("s * gate[q + 1, h]")


def test_output() -> None:
    (case,) = run("output (1 - u) * o + u * v for h in {1, 3}", "(u = 0.25)").outputs
    assert case.heads == (1, 3)
    o, v = S, 2 * S
    found = value(case.output, 1, {Given.OUTPUT: o, Given.VALUE: v})
    np.testing.assert_allclose(found, 0.75 * o + 0.25 * v)
    (gated,) = run("output sigmoid(gate[q, h]) * o").outputs
    found = value(gated.output, 1, {Given.OUTPUT: o})
    np.testing.assert_allclose(found, o / (1 + np.exp(-TABLES["gate"][:, 1]))[:, None])


def test_sinks() -> None:
    first, second = run("sink slope[h] - 1 for h < 2 sink -0.5 otherwise").sinks
    assert (first.heads, second.heads) == ((0, 1), (2, 3))
    assert print_float(first.logit) == "slope[h] - 1.0"
    assert second.logit == FloatConst(-0.5)


def test_weights() -> None:
    clauses = (
        "weights relu2(1 / 4) for h == 0 weights sigmoid(-u) for h == 1"
        " weights sigmoid for h == 2 weights softmax otherwise"
    )
    assert run(clauses, "(u = 1.5)").weights == (
        WeightCase((0,), WeightKind.RELU2, 0.25),
        WeightCase((1,), WeightKind.SIGMOID, -1.5),
        WeightCase((2,), WeightKind.SIGMOID, 0.0),
        WeightCase((3,), WeightKind.SOFTMAX),
    )


def test_a_score_that_doubles_ends() -> None:
    text = "s"
    for _ in range(40):
        text = f"softcap(s, {text})"
    with pytest.raises(PatternError) as caught:
        score(text)
    assert [found.code for found in caught.value.diagnostics] == ["expansion"]


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 7])
def test_bit_lengths(bits: int) -> None:
    text = f"pattern p = bitlen(q) == {bits} & bitlen(k - 300) == 0"
    mask = lower(parse(Source("x.pat", text))).cases[0].mask
    at = Point({Axis.QUERY: np.arange(-3, 200)[:, None], Axis.KEY: np.array([[7]])})
    found = evaluate(mask, at)[:, 0]
    expected = [max(q, 0).bit_length() == bits for q in range(-3, 200)]
    np.testing.assert_array_equal(found, expected)
    far = Point({Axis.QUERY: 2**30, Axis.KEY: 0})
    text = "pattern p = bitlen(q) == 31"
    assert evaluate(lower(parse(Source("x.pat", text))).cases[0].mask, far)
