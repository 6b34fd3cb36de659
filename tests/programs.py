"""The example programs of the language's design, as text.

In: nothing. Out: sources that several tests compile. Not its job: random programs
(`tests.strategies`).
"""

from __future__ import annotations

from collections.abc import Mapping

from patternc import driver
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source

PATTERNS = """
pattern same_block(b)        = (k <= q)[q // b, k // b]
pattern strided(local, vert) = window(local) | (k + h + 1) % vert == 0
"""

PHI3_SMALL = (
    PATTERNS
    + """
attention phi3_small {
    heads 32 kv 8
    mask  causal & strided(16, 8)[q // 64, k // 64]
    assert union over h == causal
    assert mask within causal
    assert every q has k
}
"""
)

DUO = """
attention duo(sink = 64, recent = 256) {
    heads 32 kv 8
    mask  causal                    for g in {0, 3, 6}
    mask  streaming(sink, recent)   otherwise
    assert retention <= sink + recent for g in {1}
}
"""

A_SHAPE = """
attention a_shape {
    heads 32
    mask streaming(128, 3968)
    assert density < 0.07 at N = 131072
}
"""

EXAMPLES = {"phi3_small": PHI3_SMALL, "duo": DUO, "a_shape": A_SHAPE}


def one_head(mask: str, heads: int = 1, params: str = "") -> str:
    """A program with one mask line."""
    return f"{PATTERNS}attention it{params} {{ heads {heads} mask {mask} }}"


def compiled(
    text: str,
    schedule: Schedule | None = None,
    values: Mapping[str, int | float] | None = None,
) -> Kernel:
    """The kernel of a program's only attention."""
    return driver.compile_source(Source("test.pat", text), None, values, schedule)
