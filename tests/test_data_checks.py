"""Assertions on the data of a call: each form holds and fails where it should."""

from __future__ import annotations

import numpy as np
import pytest

from patternc.analysis.prove import Decision, decide_all
from patternc.data_checks import CallPairs, failing_assert
from patternc.ir.nodes import (
    KEY,
    QUERY,
    All,
    AssertDensity,
    AssertEveryRow,
    Assertion,
    AssertRetention,
    AssertSets,
    Attention,
    AxisKind,
    Compare,
    CompareOp,
    Element,
    HeadCase,
    Input,
    InputAxis,
    PairSet,
    Quantifier,
    Read,
    Relation,
)
from tests.kernels import CAUSAL

MINE = PairSet(None)
SAME = Compare(CompareOp.EQ, Read("doc", (QUERY,)), Read("doc", (KEY,)))
INPUT = Input("doc", Element.INT, (InputAxis(AxisKind.KEY),))


def failure(item: Assertion, doc: list[int], rows: int = 6, offset: int = 0) -> str:
    """What fails for two heads, of documents and of causal documents."""
    cases = (HeadCase((0,), SAME), HeadCase((1,), All((CAUSAL, SAME))))
    attention = Attention("a", 2, 1, (), cases, (item,), (INPUT,))
    tables = {"doc": np.asarray(doc, dtype=np.int64)}
    call = CallPairs(rows, len(doc), offset, {}, tables)
    undecided = Decision(item, None, "for the test")
    return failing_assert(attention, [undecided], call) or ""


def sets(
    relation: Relation, right: PairSet, heads: tuple[int, ...], left: PairSet = MINE
) -> AssertSets:
    return AssertSets(relation, left, right, heads)


def test_within() -> None:
    causal = PairSet(CAUSAL)
    assert (
        "the assertion at <built in>:1:1 fails for this call: head 0, q = 0, k = 1"
        in (failure(sets(Relation.WITHIN, causal, (0, 1)), [0, 0, 1, 1, 1, 1]))
    )
    assert not failure(sets(Relation.WITHIN, causal, (0, 1)), [0, 1, 2, 3, 4, 5])
    assert not failure(sets(Relation.WITHIN, causal, (1,)), [0, 0, 1, 1, 1, 1])


def test_equal_and_the_union_of_heads() -> None:
    union = PairSet(None, Quantifier.UNION)
    equal = sets(Relation.EQUAL, PairSet(SAME), (0, 1), union)
    assert not failure(equal, [0, 0, 1, 1, 1, 1])
    alone = sets(Relation.EQUAL, PairSet(SAME), (0, 1))
    found = failure(alone, [0, 0, 1, 1, 1, 1])
    assert "head 1, q = 0, k = 1: in the right side, not in the left one" in found


def test_every_row_and_the_offset() -> None:
    rows = AssertEveryRow((0, 1))
    assert not failure(rows, [0, 0, 1, 1, 1, 1])
    # Rows 2 to 7 of six keys: the document of the last two is not known, and reads as
    # 0, so head 0 sees the first document from there.
    assert not failure(AssertEveryRow((0,)), [0, 0, 1, 1, 1, 1], 6, 2)
    assert "head 0, q = 6: the row is empty" in failure(rows, [1] * 6, 6, 2)


def test_density() -> None:
    def below(numerator: int) -> AssertDensity:
        return AssertDensity(CompareOp.LT, numerator, 36, 6, (0,))

    assert not failure(below(21), [0, 0, 1, 1, 1, 1])
    assert "density 0.555556 of 6 x 6 pairs" in failure(below(20), [0, 0, 1, 1, 1, 1])
    assert not failure(below(1), [0] * 6, rows=0)


def test_what_is_decided_and_what_one_call_cannot_tell_is_left_alone() -> None:
    assert not failure(AssertRetention(CompareOp.LE, 0, (0,)), [0] * 6)
    attention = Attention("a", 1, 1, (), (HeadCase((0,), SAME),), (), (INPUT,))
    tables = {"doc": np.asarray([1, 2, 3], dtype=np.int64)}
    call = CallPairs(3, 3, 1, {}, tables)
    for holds in (True, False):
        decided = Decision(AssertEveryRow((0,)), holds, "for the test")
        assert failing_assert(attention, [decided], call) is None
    undecided = Decision(AssertEveryRow((0,)), None, "for the test")
    assert failing_assert(attention, [undecided], call) is not None


@pytest.mark.parametrize(
    "form", [AssertEveryRow((0,)), sets(Relation.EQUAL, MINE, (0,))]
)
def test_an_assertion_that_reads_an_input_is_open(form: Assertion) -> None:
    later = Compare(CompareOp.LT, Read("doc", (QUERY,)), Read("doc", (KEY,)))
    attention = Attention("a", 1, 1, (), (HeadCase((0,), later),), (form,), (INPUT,))
    (decision,) = decide_all(attention)
    assert decision.holds is None
    assert "`doc`" in decision.how
