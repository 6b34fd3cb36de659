"""Layouts, coordinates and padding, against coordinates that are counted out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from patternc.check import check_file, lower
from patternc.diagnostics import PatternError
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention, Layout, Segment
from patternc.source import Source
from patternc.syntax.parse import parse

Mask = NDArray[np.bool_]

LAYOUT = "layout scene = text[5] + video[f = 2, y = 3, x = 4] + tail[3]\n"
SIZE = 5 + 24 + 3
OUTSIDE = -99

# For every token its f, y and x, or OUTSIDE: counted, not divided.
PLACES = np.array(
    [(OUTSIDE,) * 3] * 5
    + list(product(range(2), range(3), range(4)))
    + [(OUTSIDE,) * 3] * 3
)
F, Y, X = PLACES.T
INSIDE = F != OUTSIDE


def program(mask: str, layout: str = LAYOUT, parameters: str = "") -> str:
    return f"{layout}attention a{parameters} {{ heads 2 layout scene {mask} }}"


def run(text: str, **values: int) -> Attention:
    return lower(parse(Source("x.pat", text)), None, values)


def seen(text: str, size: int = SIZE, **params: int) -> Mask:
    return dense_mask(run(text).cases[0].mask, 0, size, size, None, params)


def both(rows: Mask, columns: Mask) -> Mask:
    return rows[:, None] & columns[None, :]


def test_the_layout_has_its_segments() -> None:
    segments = (
        Segment("text", 0, 5),
        Segment("video", 5, 24, (("f", 2), ("y", 3), ("x", 4))),
        Segment("tail", 29, 3),
    )
    layout = run(program("mask full")).layout
    assert layout == Layout("scene", segments)
    assert layout is not None and layout.size == SIZE


@pytest.mark.parametrize(
    ("name", "start", "end"), [("text", 0, 5), ("video", 5, 29), ("tail", 29, 32)]
)
def test_a_token_in_a_segment(name: str, start: int, end: int) -> None:
    at = np.arange(SIZE)
    inside = (at >= start) & (at < end)
    everywhere = np.ones(SIZE, dtype=bool)
    found = seen(program(f"mask k in {name}"))
    np.testing.assert_array_equal(found, both(everywhere, inside))
    found = seen(program(f"mask ~q in {name}"))
    np.testing.assert_array_equal(found, both(~inside, everywhere))
    found = seen(program(f"mask q + 2 in {name}"))
    shifted = (at + 2 >= start) & (at + 2 < end)
    np.testing.assert_array_equal(found, both(shifted, everywhere))


@pytest.mark.parametrize(("axis", "places"), [("f", F), ("y", Y), ("x", X)])
def test_a_coordinate(axis: str, places: NDArray[np.int64]) -> None:
    inside = both(INSIDE, INSIDE)
    equal = places[:, None] == places[None, :]
    found = seen(program(f"mask q.{axis} == k.{axis}"))
    np.testing.assert_array_equal(found, inside & equal)
    # Outside of the segment the comparison is false, so its complement is true.
    found = seen(program(f"mask ~(q.{axis} == k.{axis})"))
    np.testing.assert_array_equal(found, ~(inside & equal))
    found = seen(program(f"mask q.{axis} != k.{axis}"))
    np.testing.assert_array_equal(found, inside & ~equal)


def test_only_the_innermost_comparison_is_false() -> None:
    found = seen(program("mask q.x == k.x | k <= q"))
    at = np.arange(SIZE)
    causal = at[None, :] <= at[:, None]
    equal = both(INSIDE, INSIDE) & (X[:, None] == X[None, :])
    np.testing.assert_array_equal(found, causal | equal)


@pytest.mark.parametrize("number", ["bitlen(k.z)", "bitlen(k.z - 1)", "0 * k.z"])
def test_a_number_that_is_known_is_guarded_all_the_same(number: str) -> None:
    """Every token of the segment has the coordinate 0; one outside has none."""
    layout = "layout scene = text[3] + flat[z = 1, t = 2]\n"
    found = seen(program(f"mask k >= {number}", layout), 5)
    np.testing.assert_array_equal(found, [[False] * 3 + [True] * 2] * 5)


def test_each_comparison_of_a_chain_is_guarded_on_its_own() -> None:
    found = seen(program("mask 0 <= k < q.x"))
    below = np.arange(SIZE)[None, :] < X[:, None]
    np.testing.assert_array_equal(found, INSIDE[:, None] & below)


def test_sets_functions_and_nested_places() -> None:
    found = seen(program("mask q.x in {0, 3} & k.y in range(1, 3)"))
    rows = INSIDE & ((X == 0) | (X == 3))
    columns = INSIDE & ((Y == 1) | (Y == 2))
    np.testing.assert_array_equal(found, both(rows, columns))
    found = seen(program("mask max(abs(q.x - k.x), abs(q.y - k.y)) <= 1"))
    near = (abs(X[:, None] - X) <= 1) & (abs(Y[:, None] - Y) <= 1)
    np.testing.assert_array_equal(found, both(INSIDE, INSIDE) & near)


def test_a_moved_pattern_reads_the_coordinates_of_its_places() -> None:
    turned = seen(program("mask (q.x <= k.x)[k, q]"))
    np.testing.assert_array_equal(turned, seen(program("mask k.x <= q.x")))
    shifted = seen(program("mask (k.f == q.f)[q, k + 12]"))
    frame = np.append(F[12:], [OUTSIDE] * 12)
    expected = INSIDE[:, None] & (frame != OUTSIDE) & (F[:, None] == frame)
    np.testing.assert_array_equal(shifted, expected)


def test_patterns_read_the_layout_of_the_attention() -> None:
    text = "pattern beside(w) = abs(q.x - k.x) <= w & q in video\n"
    found = seen(text + program("mask beside(1)"))
    near = both(INSIDE, INSIDE) & (abs(X[:, None] - X) <= 1)
    np.testing.assert_array_equal(found, near)
    assert check_file(parse(Source("x.pat", text.replace("(w)", "(w = 1)")))) == ()
    with pytest.raises(PatternError, match="there is no layout"):
        lower(parse(Source("x.pat", text)), "beside", {"w": 1})


def test_an_axis_that_a_pattern_reads_is_checked_where_it_is_used() -> None:
    text = "pattern p = q.z == 0\n" + program("mask p")
    with pytest.raises(PatternError) as caught:
        run(text)
    (found,) = caught.value.diagnostics
    assert (found.code, found.span.text) == ("unknown-axis", "z")
    assert [other.span.text for other in found.others] == ["p"]


def test_sizes_may_be_parameters_of_the_attention() -> None:
    layout = "def area(t) = t * t\nlayout scene = text[n] + image[y = n, x = area(2)]\n"
    found = run(program("mask q.y == k.y", layout, "(n = 3)"), n=6).layout
    assert found is not None
    assert found.segments[1] == Segment("image", 6, 24, (("y", 6), ("x", 4)))


def test_the_length_is_known() -> None:
    assert seen(program(f"mask N == {SIZE}")).all()


def pad(at: NDArray[np.int64], start: int, size: int, valid: int) -> Mask:
    return (at >= start + valid) & (at < start + size)


@pytest.mark.parametrize("valid", [-1, 0, 1, 3, 5, 9])
def test_padding_sees_only_itself(valid: int) -> None:
    at = np.arange(SIZE)
    layout = LAYOUT.replace("text[5]", "text[5, valid = n]")
    text = program("mask q in text | k <= q", layout, "(n: runtime)")
    causal = at[None, :] <= at[:, None]
    mask = causal | (at < 5)[:, None]
    padding = pad(at, 0, 5, max(valid, 0))
    expected = mask & both(~padding, ~padding)
    expected |= np.eye(SIZE, dtype=bool) & padding[:, None]
    np.testing.assert_array_equal(seen(text, n=valid), expected)


def test_a_valid_length_from_an_input_and_a_parameter() -> None:
    at = np.arange(SIZE)
    layout = (
        "layout scene = text[5, valid = m] + image[y = 4, x = 6, valid = n] + e[3]\n"
    )
    attention = run(program("mask full input m[b] : int", layout, "(n: runtime = 7)"))
    tables = {"m": np.asarray(2)}
    mask = attention.cases[0].mask
    found = dense_mask(mask, 0, SIZE, SIZE, None, {"n": 7}, tables)
    padding = pad(at, 0, 5, 2) | pad(at, 5, 24, 7)
    expected = both(~padding, ~padding) | (np.eye(SIZE, dtype=bool) & padding)
    np.testing.assert_array_equal(found, expected)
    assert attention.layout is not None
    assert [segment.valid for segment in attention.layout.segments] == ["m", "n", ""]


def test_the_last_of_one_segment_needs_no_guard() -> None:
    """Positions lie inside the layout, so one segment's coordinates are plain."""
    layout = "layout scene = image[y = 4, x = 8]\n"
    (case,) = run(program("mask q.y == k.x", layout)).cases
    plain = "pattern p = q // 8 == k % 8\n"
    (expected,) = lower(parse(Source("x.pat", plain))).cases
    assert case.mask == expected.mask
