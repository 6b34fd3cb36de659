"""Inputs: their axes, where they are read, and what is outside of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patternc.check import lower
from patternc.check.reads import Position, position_of
from patternc.diagnostics import PatternError
from patternc.ir.evaluate import Point, dense_mask, evaluate_int
from patternc.ir.nodes import (
    Attention,
    Axis,
    AxisKind,
    Compare,
    Element,
    Input,
    InputAxis,
)
from patternc.ir.walk import subexpressions
from patternc.source import Source
from patternc.syntax.parse import parse

Mask = NDArray[np.bool_]
Table = NDArray[np.int64]


def run(clauses: str, parameters: str = "", **values: int) -> Attention:
    text = f"attention a{parameters} {{ heads 4 kv 2 {clauses} }}"
    return lower(parse(Source("x.pat", text)), None, values)


def seen(
    clauses: str,
    tables: dict[str, Table],
    n_q: int,
    n_k: int,
    offset: int = 0,
    head: int = 0,
) -> Mask:
    mask = run(clauses).case_of(head).mask
    return dense_mask(mask, head, n_q, n_k, offset, {}, tables)


def the_input(declaration: str, parameters: str = "", **values: int) -> Input:
    (found,) = run(f"mask full {declaration}", parameters, **values).inputs
    return found


def codes(clauses: str) -> list[str]:
    with pytest.raises(PatternError) as caught:
        run(clauses)
    return [found.code for found in caught.value.diagnostics]


def test_a_block_of_a_short_layout_is_an_axis() -> None:
    """Of 7 tokens `k // 8` is 0, always: a place, and not a size of 0."""
    text = "input keep[q // 8, k // 8] : bool mask keep[q // 8, k // 8]"
    layout = f"layout seven = text[7] attention a {{ heads 1 layout seven {text} }}"
    (found,) = lower(parse(Source("x.pat", layout))).inputs
    assert found.axes == (
        InputAxis(AxisKind.QUERY, divisor=8),
        InputAxis(AxisKind.KEY, divisor=8),
    )


def test_axes() -> None:
    found = the_input("input t[b, h, g, q, k // 128, (k - 192) // 8, 3 * 75] : int")
    assert found.axes == (
        InputAxis(AxisKind.BATCH),
        InputAxis(AxisKind.HEAD),
        InputAxis(AxisKind.KV_HEAD),
        InputAxis(AxisKind.QUERY),
        InputAxis(AxisKind.KEY, 0, 128),
        InputAxis(AxisKind.KEY, 192, 8),
        InputAxis(AxisKind.SIZE, size=225),
    )


def test_elements_and_promises() -> None:
    assert the_input("input t[k] : int sorted").is_sorted
    assert not the_input("input t[k] : bool").is_sorted
    assert the_input("input t[k] : float").element is Element.FLOAT
    assert the_input("input t : int").axes == ()


def test_axes_from_parameters_and_functions() -> None:
    found = the_input("input t[2 * w + 1, q // w] : int", "(w = 4)", w=7)
    sizes = (InputAxis(AxisKind.SIZE, size=15), InputAxis(AxisKind.QUERY, 0, 7))
    assert found.axes == sizes


def test_an_input_may_be_declared_after_it_is_read() -> None:
    assert run("mask doc[q] == doc[k] input doc[k] : int").inputs[0].name == "doc"


DOCS: Table = np.repeat(np.arange(3), (5, 2, 4))
PACKED = "input doc[k] : int mask k <= q & doc[q] == doc[k]"


def test_documents() -> None:
    at = np.arange(11)
    same = DOCS[:, None] == DOCS[None, :]
    expected = same & (at[None, :] <= at[:, None])
    np.testing.assert_array_equal(seen(PACKED, {"doc": DOCS}, 11, 11), expected)


@pytest.mark.parametrize("offset", [-3, 0, 4, 9, 30])
def test_a_query_outside_of_the_keys_has_no_document(offset: int) -> None:
    found = seen(PACKED, {"doc": DOCS}, 6, 11, offset)
    for row in range(6):
        query = row + offset
        for key in range(11):
            inside = 0 <= query < 11
            expected = inside and key <= query and DOCS[query] == DOCS[key]
            assert found[row, key] == expected


def test_tables_of_blocks() -> None:
    rng = np.random.default_rng(0)
    keep = rng.integers(0, 2, (4, 5, 6))
    clauses = (
        "input keep[h, q // 4, k // 3] : bool mask k <= q & keep[h, q // 4, k // 3]"
    )
    for head in (0, 3):
        found = seen(clauses, {"keep": keep}, 13, 17, 4, head)
        queries, keys = np.arange(13)[:, None] + 4, np.arange(17)[None, :]
        blocks = keep[head, queries // 4, keys // 3] == 1
        np.testing.assert_array_equal(found, blocks & (keys <= queries))


def test_the_complement_of_a_table_is_full_outside_of_it() -> None:
    keep = np.ones(4, dtype=np.int64)
    found = seen("input keep[k] : bool mask ~keep[k + 1]", {"keep": keep}, 1, 4)
    np.testing.assert_array_equal(found, [[False, False, False, True]])


def test_per_head_and_per_group() -> None:
    width, reach = np.array([1, 2, 3, 4]), np.array([5, 1])
    clauses = (
        "input width[h] : int input reach[g] : int"
        " mask abs(q - k) < width[h] & abs(q - k) < reach[g]"
    )
    tables: dict[str, Table] = {"width": width, "reach": reach}
    at = np.arange(9)
    for head in range(4):
        found = seen(clauses, tables, 9, 9, 0, head)
        limit = min(width[head], reach[head // 2])
        np.testing.assert_array_equal(found, abs(at[:, None] - at) < limit)


def test_scalars_and_truth_values() -> None:
    clauses = "input prefix[b] : int input on : bool mask (k < prefix | k <= q) & on"
    at = np.arange(6)
    expected = (at[None, :] < 3) | (at[None, :] <= at[:, None])
    tables: dict[str, Table] = {"prefix": np.asarray(3), "on": np.asarray(1)}
    np.testing.assert_array_equal(seen(clauses, tables, 6, 6), expected)
    tables["on"] = np.asarray(0)
    assert not seen(clauses, tables, 6, 6).any()


def test_a_table_of_sizes_is_read_inside_only() -> None:
    tree = np.array([[1, 0], [1, 1]])
    clauses = "input tree[2, 2] : bool mask k < 3 | tree[q, k - 3]"
    found = seen(clauses, {"tree": tree}, 3, 6)
    expected = np.array(
        [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], dtype=bool
    )
    np.testing.assert_array_equal(found, expected)


def test_reads_of_reads() -> None:
    parent = np.array([9, 0, 0, 1, 5])  # 9 and 5 are outside
    clauses = "input parent[k] : int mask k == parent[parent[q]]"
    found = seen(clauses, {"parent": parent}, 5, 5)
    expected = np.zeros((5, 5), dtype=bool)
    expected[3, 0] = True  # 3 -> 1 -> 0; others: 1 -> 0 -> 9, 2 -> 0 -> 9
    np.testing.assert_array_equal(found, expected)


def test_inputs_as_arguments_and_at_other_coordinates() -> None:
    text = (
        "pattern equal(x, y) = x == y\n"
        "attention a { heads 1 input doc[k] : int mask equal(doc[q], doc[k])[k, q] }"
    )
    mask = lower(parse(Source("x.pat", text))).cases[0].mask
    found = dense_mask(mask, 0, 11, 11, 0, {}, {"doc": DOCS})
    np.testing.assert_array_equal(found, DOCS[:, None] == DOCS[None, :])


def test_an_input_over_queries_has_one_place() -> None:
    reach = np.array([0, 1, 5, 2])
    found = seen("input t[q] : int mask q - k < t[q]", {"t": reach}, 4, 4)
    at = np.arange(4)
    np.testing.assert_array_equal(found, at[:, None] - at < reach[:, None])
    assert codes("input t[q] : int mask t[q + 1] == 0") == ["bad-read"]
    assert codes("input t[q // 2] : int mask t[q] == 0") == ["bad-read"]
    assert codes("input t[q // 2] : int mask (t[q // 2] == 0)[k, q]") == ["bad-read"]
    assert run("input t[(q - 4) // 2] : int mask t[(q - 4) // 2] == 0").inputs


def test_bounds_of_what_is_read() -> None:
    assert codes("input t[k] : int mask q // t[k] == 0") == ["zero-division"]
    assert codes("input t[k] : int mask t[k] * t[q] * 3 == 0") == ["overflow"]
    assert run("input t[k] : int mask t[k] * t[q] == q // max(t[k], 1)").inputs


def test_what_is_known_needs_no_guard() -> None:
    clauses = "input t[k] : int input u[h] : int mask t[k] == 0"
    text = f"pattern p = k == 0\nattention a {{ heads 4 {clauses} & u[h] + u[3] == 0 }}"
    (case,) = lower(parse(Source("x.pat", text)), "a").cases
    compared = [n for n in subexpressions(case.mask) if isinstance(n, Compare)]
    assert len(compared) == 2


AXES = st.tuples(st.integers(0, 9), st.integers(1, 5))
WORDS = {"q": Axis.QUERY, "k": Axis.KEY}


@given(
    axis=AXES,
    place=st.sampled_from(
        ("k", "q", "q - 3", "k + 2", "q // 2", "(k - 2) // 3", "q - k")
    ),
    n_q=st.integers(1, 12),
    n_k=st.integers(1, 12),
    offset=st.integers(-6, 12),
)
def test_a_read_is_guarded_exactly(
    axis: tuple[int, int], place: str, n_q: int, n_k: int, offset: int
) -> None:
    """True is read everywhere inside, so the mask shows where inside is."""
    shift, divisor = axis
    declared = f"(k - {shift}) // {divisor}"
    for index in (place, f"({place} - {shift}) // {divisor}"):
        clauses = f"input t[{declared}] : bool mask t[{index}]"
        length = len({i for p in range(n_k) if (i := (p - shift) // divisor) >= 0})
        table = np.ones(length, dtype=np.int64)
        found = seen(clauses, {"t": table}, n_q, n_k, offset)
        mask = run(f"mask {index} == 0").cases[0].mask
        assert isinstance(mask, Compare)
        number = mask.lhs
        queries = np.arange(n_q)[:, None] + offset
        at = Point({Axis.QUERY: queries, Axis.KEY: np.arange(n_k)[None, :]})
        values = np.broadcast_to(evaluate_int(number, at), (n_q, n_k))
        np.testing.assert_array_equal(found, (values >= 0) & (values < length))


@given(
    st.lists(
        st.tuples(st.sampled_from(("+", "-", "//")), st.integers(-6, 6)), max_size=5
    ),
    st.sampled_from(("q", "k")),
)
def test_positions_are_recognised(steps: list[tuple[str, int]], word: str) -> None:
    assume(all(sign != "//" or by > 0 for sign, by in steps))
    text = word
    for sign, by in steps:
        text = f"({text}) {sign} {by}" if by >= 0 else f"({text}) + ({by})"
    mask = run(f"mask {text} == 0").cases[0].mask
    assert isinstance(mask, Compare)
    number = mask.lhs
    found = position_of(number)
    assert isinstance(found, Position) and found.axis is WORDS[word]
    positions = np.arange(-40, 40)
    values = evaluate_int(number, Point({found.axis: positions}))
    expected = (positions - found.shift) // found.divisor
    np.testing.assert_array_equal(values, expected)
