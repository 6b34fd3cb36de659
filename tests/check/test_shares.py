"""Cases over heads, layers and steps; skipped heads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patternc.check import lower
from patternc.diagnostics import PatternError
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import (
    EMPTY_PATTERN,
    AssertEveryRow,
    Attention,
    FloatSelect,
    RuntimeParam,
)
from patternc.ir.text import print_attention, print_float
from patternc.source import Source
from patternc.syntax.parse import parse


def run(clauses: str, heads: str = "4", **values: int) -> Attention:
    text = f"attention a {{ heads {heads} {clauses} }}"
    return lower(parse(Source("x.pat", text)), "a", values)


def findings(clauses: str) -> list[tuple[str, str]]:
    with pytest.raises(PatternError) as caught:
        run(clauses)
    return [(found.code, found.message) for found in caught.value.diagnostics]


def sees(attention: Attention, head: int, **steps: int) -> int:
    """How many of 6 keys the last of 6 queries sees."""
    read = {"layer": 0, "step": 0, **steps}
    mask = dense_mask(attention.case_of(head).mask, head, 6, 6, 0, read)
    return int(mask[-1].sum())


LAYERS = "mask window(1) for layer % 2 == 0 & h < 2 mask window(2) for h == 3"


def test_a_layer_is_a_condition_in_the_mask() -> None:
    attention = run(f"{LAYERS} mask window(5) otherwise")
    assert attention.params == (RuntimeParam("layer", 0),)
    for head, layer in ((h, layer) for h in range(4) for layer in range(5)):
        expected = 2 if head == 3 else 5
        if head < 2 and layer % 2 == 0:
            expected = 1
        assert sees(attention, head, layer=layer) == expected
    assert sorted(head for case in attention.cases for head in case.heads) == [
        0,
        1,
        2,
        3,
    ]


def test_a_value_for_the_layer_is_its_default() -> None:
    attention = run(f"{LAYERS} mask full otherwise", layer=3)
    assert attention.params == (RuntimeParam("layer", 3),)
    with pytest.raises(PatternError, match="lies between 0"):
        run("mask full", layer=-1)
    with pytest.raises(PatternError, match="not an integer"):
        run("mask full", step=1.5)  # type: ignore[arg-type]
    assert run("mask full", step=2).params == ()


def test_a_mask_may_read_the_step() -> None:
    attention = run("mask window(1 + step // 2)")
    assert attention.params == (RuntimeParam("step", 0),)
    assert [sees(attention, 0, step=step) for step in (0, 1, 2, 5)] == [1, 1, 2, 3]


def test_cases_that_cover_every_layer_need_no_otherwise() -> None:
    attention = run("mask full for layer % 2 == 0 mask causal for layer % 2 == 1")
    assert len(attention.cases) == 1
    assert sees(attention, 0, layer=1) == 6
    text = print_attention(attention)
    assert "layer % 2 == 0 & full | layer % 2 == 1 & k <= q" in text


def test_an_overlap_shows_a_head_and_a_layer() -> None:
    clauses = "mask full for layer >= h mask causal for layer + h < 5"
    assert findings(clauses) == [("case-overlap", "head 0 has two masks at layer 0")]
    clauses = "mask full for layer < 3 mask causal for layer > 3 & step < 2"
    message = "head 0 has no mask at layer 3, step 0"
    assert findings(clauses) == [("case-missing", message)]


def test_heads_of_one_condition_stay_together() -> None:
    clauses = "mask full for layer < 3 & h < 30 mask causal otherwise"
    first, second = run(clauses, "64 kv 8").cases
    assert (len(first.heads), len(second.heads)) == (30, 34)


def test_scores_and_outputs_by_step() -> None:
    attention = run(
        "mask full score 2 * s for step < 3 & h == 0 score 3 * s for step >= 5"
        " output v for layer == 0"
    )
    assert attention.params == (RuntimeParam("layer", 0), RuntimeParam("step", 0))
    first, second = attention.scores
    assert (first.heads, second.heads) == ((0,), (1, 2, 3))
    assert (
        print_float(first.score)
        == "where(step < 3, 2.0 * s, where(step >= 5, 3.0 * s, s))"
    )
    assert isinstance(second.score, FloatSelect)
    (output,) = attention.outputs
    assert print_float(output.output) == "where(layer == 0, v, o)"


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3)).filter(
            lambda condition: condition[1] < condition[0]
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whether_cases_overlap_is_exact(conditions: list[tuple[int, int, int]]) -> None:
    """Conditions `(layer + h) % d == r & h != n`, tried at every layer below 24."""
    clauses = "".join(
        f" mask window({place + 1}) for (layer + h) % {d} == {r} & h != {n}"
        for place, (d, r, n) in enumerate(conditions)
    )
    holds = [
        [
            [(layer + h) % d == r and h != n for d, r, n in conditions if r < d]
            for layer in range(24)
        ]
        for h in range(4)
    ]
    try:
        attention = run(f"{clauses} mask full otherwise")
    except PatternError as error:
        codes = {found.code for found in error.diagnostics}
        overlap = any(sum(case) > 1 for head in holds for case in head)
        assert codes == {"case-overlap"} if overlap else codes == {"no-head"}
        assert overlap or all(any(case) for head in holds for case in head)
        return
    for head, layer in ((h, layer) for h in range(4) for layer in range(24)):
        case = holds[head][layer]
        assert sum(case) < 2
        expected = case.index(True) + 1 if any(case) else 6
        assert sees(attention, head, layer=layer) == expected


def test_skipped_heads() -> None:
    attention = run(
        "mask causal for h < 1 mask full otherwise skip for h in {2} skip for h == 3"
        " assert every q has k assert mask within causal for h in {0, 2}"
    )
    assert attention.skipped == (2, 3)
    assert attention.case_of(2).mask == attention.case_of(3).mask == EMPTY_PATTERN
    assert attention.case_of(1).heads == (1,)
    rows, within = attention.asserts
    assert rows == AssertEveryRow((0, 1))
    assert within.heads == (0,)
    assert "skip  for h in {2..3}" in print_attention(attention)


def test_a_skipped_head_has_no_other_case() -> None:
    message = "head 2 is skipped and has a mask"
    assert findings("mask full skip for h == 2") == [("case-overlap", message)]
    clauses = "mask full otherwise score 2 * s for h == 1 skip for h == 1"
    assert findings(clauses) == [("case-overlap", "head 1 is skipped and has a score")]
    clauses = "mask full otherwise skip for h == 1 assert every q has k for h == 1"
    assert findings(clauses) == [("no-head", "every head of this assert is skipped")]
    assert run("mask full otherwise score 2 * s otherwise skip for h == 2").skipped


def test_padding_is_not_given_to_skipped_heads() -> None:
    text = (
        "layout l = text[4, valid = n]\n"
        "attention a(n: runtime = 2) { heads 2 layout l mask full otherwise"
        " skip for h == 1 }"
    )
    attention = lower(parse(Source("x.pat", text)))
    assert attention.case_of(1).mask == EMPTY_PATTERN
    padded = dense_mask(attention.case_of(0).mask, 0, 4, 4, 0, {"n": 2})
    expected = np.array(
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=bool
    )
    np.testing.assert_array_equal(padded, expected)


def test_conditions_hold_for_values_of_parameters() -> None:
    text = "attention a(n = 1) { heads 4 mask full for h in {n, n + 1} mask causal otherwise }"
    file = parse(Source("x.pat", text))
    assert lower(file).cases[0].heads == (1, 2)
    assert lower(file, None, {"n": 0}).cases[0].heads == (0, 1)


def test_a_pattern_may_read_the_layer() -> None:
    attention = lower(
        parse(Source("x.pat", "pattern p = k < layer")), "p", {"layer": 4}
    )
    assert attention.params == (RuntimeParam("layer", 4),)
    seen = dense_mask(attention.cases[0].mask, 0, 6, 6, 0, {"layer": 2})
    assert seen.sum(axis=1).tolist() == [2] * 6


@pytest.mark.parametrize(
    ("clause", "advice"),
    [
        ("order all by phase(2) for layer == 0", "one that serves all layers"),
        ("weights sigmoid for step < 2 & h == 1", "an attention for each kind"),
        ("sink 1 for layer == 0", "`sink where(layer == 0, x, y)`"),
        ("skip for h == 2 & layer == 0", "`mask empty for h == 2 & layer == 0`"),
        ("assert every q has k for layer == 0", "put the condition in its sets"),
    ],
)
def test_clauses_without_cases_over_layers_say_what_to_write(
    clause: str, advice: str
) -> None:
    with pytest.raises(PatternError) as caught:
        run(f"mask full {clause}")
    found = next(one for one in caught.value.diagnostics if one.code == "unsupported")
    assert advice in found.help
    assert found.span.text in clause


def test_what_that_advice_says_can_be_written() -> None:
    attention = run(
        "mask empty for h == 2 & layer == 0 mask causal otherwise"
        " sink where(layer == 0, 1.0, 2.0) assert mask within causal"
    )
    assert attention.params == (RuntimeParam("layer", 0),)
    assert (sees(attention, 2), sees(attention, 2, layer=1)) == (0, 6)
