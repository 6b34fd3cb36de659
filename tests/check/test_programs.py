"""The programs of the language's description, against formulas written in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from patternc.check import check_file, entries, lower
from patternc.diagnostics import Severity
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import (
    AssertDensity,
    AssertEveryRow,
    AssertRetention,
    AssertSets,
    Attention,
    Const,
    Quantifier,
    Relation,
)
from patternc.ir.walk import subexpressions
from patternc.source import Source
from patternc.syntax.parse import parse

PROGRAM = """
# --- patterns: named sets of pairs; parameters are integers unless typed
pattern causal                   = k <= q
pattern window(w)                = 0 <= q - k < w              # comparisons chain
pattern band(w)                  = abs(q - k) <= w
pattern sink(n)                  = k < n
pattern streaming(n, w)          = causal & (sink(n) | window(w))
pattern dilated(w, d)            = window(w) & (q - k) % d == 0
pattern block_diagonal(b)        = q // b == k // b
pattern same_block(b)            = (k <= q)[q // b, k // b]    # p[e1, e2]
pattern strided(local, vert)     = window(local) | (k + h + 1) % vert == 0
def row(t) = t // 32
pattern rows                     = row(q) == row(k)
pattern shifted                  = window(16)[q + 128, k + 128]
pattern turned                   = streaming(3, 9)[k, q]
pattern nested(w)                = window(w)[q // 2, k // 3][q + 5, k]
pattern rebound                  = window(q // 8)[k + 2, q]
pattern clamped                  = clamp(q - k, -3, 5) == q - k
pattern chosen                   = q - k in {0, 3, 6} | k in range(2, 5)
pattern extremes                 = min(q, k, 9) + max(q, 20) == 2 * q - -k
pattern tight                    = k <= q & ~(q - k) % 4 == 0 | k == 0
pattern grouped                  = k % 4 == g

attention phi3_small {                                     # S2-Attention
    heads 32 kv 8
    mask  causal & strided(16, 8)[q // 64, k // 64]
    assert union over h == causal                          # every position is seen
    assert mask within causal                              # no future leak
    assert every q has k                                   # no empty row
}

attention duo(sink = 64, recent = 256) {                   # DuoAttention
    heads 32 kv 8
    mask  causal                    for g in {0, 3, 6}     # g: kv head, h: query head
    mask  streaming(sink, recent)   otherwise
    assert retention <= sink + recent for g in {1}         # keys ever kept
}

attention a_shape {                                        # MInference
    heads 32
    mask streaming(128, 3968)
    assert density < 0.07 at N = 131072
}

attention moving(recent: runtime = 20) {
    heads 2
    mask window(recent)
}

attention groups {
    heads 8 kv 4
    mask grouped
}
"""

Grid = NDArray[np.int64]
Mask = NDArray[np.bool_]
FILE = parse(Source("program.pat", PROGRAM))


def grids(n_q: int, n_k: int, offset: int) -> tuple[Grid, Grid]:
    return np.arange(n_q)[:, None] + offset, np.arange(n_k)[None, :]


def window(q: Grid, k: Grid, w: int) -> Mask:
    return np.asarray((q - k >= 0) & (q - k < w))


def streaming(q: Grid, k: Grid, n: int, w: int) -> Mask:
    return np.asarray((k <= q) & ((k < n) | (q - k < w)))


def tight(q: Grid, k: Grid) -> Mask:
    return np.asarray(((k <= q) & ~((q - k) % 4 == 0)) | (k + 0 * q == 0))


FORMULAS: dict[str, Callable[[Grid, Grid], Mask]] = {
    "causal": lambda q, k: k <= q,
    "window": lambda q, k: window(q, k, 7),
    "band": lambda q, k: np.abs(q - k) <= 7,
    "sink": lambda q, k: np.broadcast_to(k < 7, (len(q), k.size)),
    "streaming": lambda q, k: streaming(q, k, 7, 11),
    "dilated": lambda q, k: window(q, k, 7) & ((q - k) % 11 == 0),
    "block_diagonal": lambda q, k: q // 7 == k // 7,
    "same_block": lambda q, k: k // 7 <= q // 7,
    "strided": lambda q, k: window(q, k, 7) | ((k + 1) % 11 == 0),
    "rows": lambda q, k: q // 32 == k // 32,
    "shifted": lambda q, k: window(q, k, 16),
    "turned": lambda q, k: streaming(k, q, 3, 9),
    "nested": lambda q, k: window((q + 5) // 2, k // 3, 7),
    "rebound": lambda q, k: (k + 2 - q >= 0) & (k + 2 - q < (k + 2) // 8),
    "clamped": lambda q, k: (q - k >= -3) & (q - k <= 5),
    "chosen": lambda q, k: np.isin(q - k, [0, 3, 6]) | ((k >= 2) & (k < 5)),
    "extremes": lambda q, k: (
        np.minimum(np.minimum(q, k), 9) + np.maximum(q, 20) == 2 * q + k
    ),
    "tight": tight,
    "grouped": lambda q, k: np.broadcast_to(k % 4 == 0, (len(q), k.size)),
}


def given_values(name: str) -> dict[str, int]:
    """7, then 11, for the parameters of a pattern."""
    item = next(item for item in FILE.items if item.name.text == name)
    return dict(zip((p.name.text for p in item.parameters), (7, 11), strict=False))


def test_every_pattern_of_the_program_has_a_formula() -> None:
    attentions = {"phi3_small", "duo", "a_shape", "moving", "groups"}
    assert set(FORMULAS) | attentions == set(entries(FILE))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(
    ("n_q", "n_k", "offset"), [(40, 40, 0), (9, 50, 41), (6, 4, 70)]
)
def test_a_pattern_means_its_formula(
    name: str, n_q: int, n_k: int, offset: int
) -> None:
    attention = lower(FILE, name, given_values(name))
    assert (attention.heads, attention.kv_heads) == (1, 1)
    seen = dense_mask(attention.cases[0].mask, 0, n_q, n_k, offset)
    np.testing.assert_array_equal(seen, FORMULAS[name](*grids(n_q, n_k, offset)))


def test_the_file_has_no_errors_and_hides_seven_patterns() -> None:
    found = check_file(FILE)
    assert {item.severity for item in found} == {Severity.WARNING}
    assert [item.code for item in found] == ["hides-standard"] * 7


def mask_of(attention: Attention, head: int, n: int, **params: int) -> Mask:
    return dense_mask(attention.case_of(head).mask, head, n, n, None, params)


def test_phi3_small() -> None:
    attention = lower(FILE, "phi3_small")
    assert (attention.heads, attention.kv_heads) == (32, 8)
    q, k = grids(1500, 1500, 0)
    for head in (0, 5, 31):
        blocks = window(q // 64, k // 64, 16) | ((k // 64 + head + 1) % 8 == 0)
        expected = (k <= q) & blocks
        np.testing.assert_array_equal(mask_of(attention, head, 1500), expected)
    united, within, rows = attention.asserts
    assert isinstance(united, AssertSets) and isinstance(within, AssertSets)
    assert (united.relation, within.relation) == (Relation.EQUAL, Relation.WITHIN)
    assert united.lhs.quantifier is Quantifier.UNION
    assert united.lhs.pattern is None and within.lhs.pattern is None
    assert within.lhs.quantifier is Quantifier.EACH_HEAD
    assert united.rhs.pattern == lower(FILE, "causal").cases[0].mask
    assert rows == AssertEveryRow(tuple(range(32)))


def test_duo() -> None:
    attention = lower(FILE, "duo", {"recent": 30})
    full, rest = attention.cases
    assert full.heads == (0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27)
    assert sorted(full.heads + rest.heads) == list(range(32))
    q, k = grids(200, 200, 0)
    np.testing.assert_array_equal(mask_of(attention, 27, 200), k <= q)
    expected = streaming(q, k, 64, 30)
    np.testing.assert_array_equal(mask_of(attention, 28, 200), expected)
    (claim,) = attention.asserts
    assert isinstance(claim, AssertRetention)
    assert (claim.bound, claim.heads) == (64 + 30, (4, 5, 6, 7))
    assert full.span.text == "mask  causal                    for g in {0, 3, 6}"


def test_a_shape() -> None:
    (claim,) = lower(FILE, "a_shape").asserts
    assert isinstance(claim, AssertDensity)
    assert (claim.numerator, claim.denominator) == (7, 100)
    assert claim.length == 131072


def test_a_runtime_parameter_stays_and_values_replace_its_default() -> None:
    attention = lower(FILE, "moving")
    assert [(p.name, p.default) for p in attention.params] == [("recent", 20)]
    changed = lower(FILE, "moving", {"recent": 5})
    assert [p.default for p in changed.params] == [5]
    assert changed.cases == attention.cases
    q, k = grids(40, 40, 0)
    seen = mask_of(attention, 1, 40, recent=9)
    np.testing.assert_array_equal(seen, window(q, k, 9))


def test_g_is_the_key_value_head() -> None:
    attention = lower(FILE, "groups")
    _, k = grids(8, 8, 0)
    for head in range(8):
        expected = np.broadcast_to(k % 4 == head // 2, (8, 8))
        np.testing.assert_array_equal(mask_of(attention, head, 8), expected)


def test_constants_point_at_what_was_written() -> None:
    text = "pattern p(w) = 0 <= q - k < w\nattention a { heads 1 mask p(77) }\n"
    (case,) = lower(parse(Source("x.pat", text))).cases
    found = [n for n in subexpressions(case.mask) if isinstance(n, Const)]
    assert {node.span.text for node in found} == {"0", "77"}


def test_a_standard_pattern_does_not_see_what_hides_another() -> None:
    text = "pattern causal = full\npattern p = streaming(2, 3)\n"
    attention = lower(parse(Source("x.pat", text)), "p")
    q, k = grids(9, 9, 0)
    expected = streaming(q, k, 2, 3)
    np.testing.assert_array_equal(mask_of(attention, 0, 9), expected)
