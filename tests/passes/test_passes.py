"""Every pass keeps the meaning and is idempotent; and does what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from patternc.check import lower
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention, Not
from patternc.ir.text import print_expr
from patternc.ir.walk import subexpressions
from patternc.passes import PIPELINE, Pass, run
from patternc.source import Source
from patternc.syntax.parse import parse
from tests.programs import one_head
from tests.strategies import PARAM, Size, attentions, sizes


def lowered(text: str) -> Attention:
    return lower(parse(Source("test.pat", text)))


def after(text: str) -> Attention:
    return run(lowered(text))[-1][1]


@pytest.mark.parametrize("step", PIPELINE, ids=lambda step: step.name)
@given(attention=attentions(affine=False, runtime=True), size=sizes)
def test_a_pass_keeps_the_meaning(step: Pass, attention: Attention, size: Size) -> None:
    changed = step(attention)
    values = {PARAM: attention.params[0].default or 0}
    for head in range(attention.heads):
        shape = (size.n_q, size.n_k, size.q_offset, values)
        before = dense_mask(attention.case_of(head).mask, head, *shape)
        assert np.array_equal(
            dense_mask(changed.case_of(head).mask, head, *shape), before
        )
    assert step(changed) == changed


@given(attentions(affine=False))
def test_after_normalize_only_comparisons_are_left_to_negate(
    attention: Attention,
) -> None:
    for case in run(attention)[-1][1].cases:
        nodes = list(subexpressions(case.mask))
        assert not any(isinstance(node, Not) for node in nodes)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("k + 3 + 1 <= q", "k + 4 <= q"),
        ("(k + h + 9) % 8 == 0", "(k + h + 1) % 8 == 0"),
        ("k * 1 // 1 <= q + 0", "k <= q"),
        ("causal & 3 < 5", "k <= q"),
        ("causal & 5 < 3", "empty"),
        ("causal | full", "full"),
        ("~(causal & band(3))", "k > q | abs(q - k) > 3"),
        ("causal & causal & (causal | empty)", "k <= q"),
        ("~~causal", "k <= q"),
    ],
)
def test_what_folding_and_normalizing_write(written: str, printed: str) -> None:
    assert print_expr(after(one_head(written)).cases[0].mask) == printed


def test_heads_with_one_mask_are_one_group() -> None:
    text = """attention it { heads 6
        mask window(8)  for h in {0, 4}
        mask causal     for h in {1}
        mask window(4 + 4) for h in {2, 5}
        mask ~(k > q)   otherwise }"""
    groups = [(case.heads, print_expr(case.mask)) for case in after(text).cases]
    assert groups == [
        ((0, 2, 4, 5), "0 <= q - k & q - k < 8"),
        ((1, 3), "k <= q"),
    ]


def test_names_are_unique() -> None:
    assert len({step.name for step in PIPELINE}) == len(PIPELINE)
