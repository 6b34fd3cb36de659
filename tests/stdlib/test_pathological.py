"""What isl can't do in bounded work ends in tile lists, with the same mask."""

from __future__ import annotations

import numpy as np
import pytest

from patternc import driver
from patternc.check import lower
from patternc.ir.evaluate import dense_mask
from patternc.plan.expand import plan_mask
from patternc.plan.kernel import Schedule
from patternc.source import Source
from patternc.syntax.parse import parse

NESTED = """
def f(t) = (t // 3 % 17 * 5 + t % 11) // 2
def twice(t) = f(f(t) + t // 7) % 13 + f(t // 5)
attention nested { heads 1 mask twice(q) < twice(k) & (twice(q + k) + f(q - k)) % 5 < 3 }
"""
TERMS = "attention terms { heads 1 mask " + " | ".join(
    f"(q * {n} + k * {2 * n + 1}) % {n * n + 7} // {n + 2} == {n} // 2"
    for n in range(1, 30)
)
CORNERS = """
pattern near(n) = abs(q // n % n - k // n % n) <= 2 & abs(q % n - k % n) <= n // 3
attention corners {
    heads 1
    mask (near(7) | near(11)[k, q] | near(13)[q + 5, k // 2]) & ~near(5)[q // 3, k // 3]
}
"""
PROGRAMS = {"nested": NESTED, "terms": TERMS + " }", "corners": CORNERS}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_falls_back_and_means_the_same(name: str) -> None:
    source = Source("hard.pat", PROGRAMS[name])
    kernel = driver.compile_source(source, None, None, Schedule(32, 32))
    (cover,) = kernel.covers
    assert cover.ranges is None
    assert cover.reason != ""
    mask = lower(parse(source)).cases[0].mask
    for n_q, n_k in ((90, 170), (170, 90)):
        found = plan_mask(kernel, 0, n_q, n_k)
        np.testing.assert_array_equal(found, dense_mask(mask, 0, n_q, n_k))
