"""Which heads share one loop nest, and which must not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import (
    EMPTY_PATTERN,
    Attention,
    BoolExpr,
    FloatConst,
    HeadCase,
    OrderCase,
    OutputCase,
    PhaseOrder,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
)
from patternc.ir.text import print_expr
from patternc.passes.group_heads import GroupHeads
from patternc.plan.kernel import Schedule
from patternc.plan.tiling import plan
from tests.kernels import CAUSAL, per_head, streaming, window

GROUP = GroupHeads()


def attention_of(*masks: BoolExpr) -> Attention:
    """A case of its own for each head."""
    cases = tuple(HeadCase((head,), mask) for head, mask in enumerate(masks))
    return Attention("it", len(masks), 1, (), cases)


def groups_of(attention: Attention) -> list[tuple[int, ...]]:
    return [case.heads for case in GROUP(attention).cases]


def test_numbers_that_are_affine_in_the_head_become_one_mask() -> None:
    attention = attention_of(*(window(64 + 32 * head) for head in range(5)))
    (case,) = GROUP(attention).cases
    assert case.heads == (0, 1, 2, 3, 4)
    assert print_expr(case.mask) == "0 <= q - k & q - k < 32 * h + 64"
    for head in range(5):
        expected = dense_mask(attention.case_of(head).mask, head, 300, 300)
        assert (dense_mask(case.mask, head, 300, 300) == expected).all()


@pytest.mark.parametrize(
    ("widths", "printed"),
    [
        ((3, 4, 5), "h + 3"),
        ((0, 7, 14), "7 * h"),
        ((9, 7, 5), "-2 * h + 9"),
        ((-4, 0, 4), "4 * h - 4"),
    ],
)
def test_how_the_number_is_written(widths: Iterable[int], printed: str) -> None:
    (case,) = GROUP(attention_of(*map(window, widths))).cases
    assert print_expr(case.mask).endswith(f"q - k < {printed}")


@pytest.mark.parametrize(
    "masks",
    [
        (window(8), window(16), window(25)),  # no line goes through them
        (per_head(4), per_head(6)),  # a divisor must stay a number
        (window(8), CAUSAL),
        (CAUSAL, window(8)),
    ],
)
def test_what_stays_apart(masks: tuple[BoolExpr, ...]) -> None:
    assert groups_of(attention_of(*masks)) == [(head,) for head in range(len(masks))]


def test_a_constant_for_many_heads_is_no_line() -> None:
    cases = (HeadCase((0,), window(8)), HeadCase((1, 2, 3), window(16)))
    attention = Attention("it", 4, 1, (), cases)
    assert groups_of(attention) == [(0,), (1, 2, 3)]


def test_two_numbers_may_change_together() -> None:
    (case,) = GROUP(attention_of(streaming(4, 16), streaming(8, 24))).cases
    assert case.heads == (0, 1)
    assert "4 * h + 4" in print_expr(case.mask)
    assert "8 * h + 16" in print_expr(case.mask)


def test_64_heads_of_three_kinds_are_three_loop_nests() -> None:
    kinds = (CAUSAL, window(64), streaming(4, 32))
    attention = attention_of(*(kinds[head * 7 % 3] for head in range(64)))
    grouped = GROUP(attention)
    assert len(grouped.cases) == 3
    assert len(plan(grouped, Schedule()).covers) == 3
    assert GROUP.notes(attention) == ("64 heads in 3 loop nests",)


ONE, TWO = FloatConst(1.0), FloatConst(2.0)
ALIKE = attention_of(CAUSAL, CAUSAL, CAUSAL)


@pytest.mark.parametrize(
    "attention",
    [
        replace(ALIKE, orders=(OrderCase((1,), None, PhaseOrder(2)),)),
        replace(ALIKE, scores=(ScoreCase((1,), ONE), ScoreCase((0, 2), TWO))),
        replace(ALIKE, weights=(WeightCase((1,), WeightKind.SIGMOID),)),
        replace(ALIKE, sinks=(SinkCase((1,), ONE),)),
        replace(ALIKE, outputs=(OutputCase((1,), TWO),)),
        replace(attention_of(*[EMPTY_PATTERN] * 3), skipped=(1,)),
    ],
    ids=["order", "score", "weights", "sink", "output", "skipped"],
)
def test_heads_that_differ_beside_the_mask_stay_apart(attention: Attention) -> None:
    assert groups_of(attention) == [(0, 2), (1,)]


def test_a_case_is_split_where_its_heads_differ() -> None:
    attention = Attention("it", 3, 1, (), (HeadCase((0, 1, 2), CAUSAL),))
    orders = (OrderCase((0, 2), None, PhaseOrder(2)),)
    assert groups_of(replace(attention, orders=orders)) == [(0, 2), (1,)]


def test_the_notes_show_the_number() -> None:
    notes = GROUP.notes(attention_of(window(8), window(16)))
    assert notes[0] == "2 heads in 1 loop nest"
    assert notes[1].endswith("differ in a number: 0 <= q - k & q - k < 8 * h + 8")
