"""Random programs mean the same as text and as IR, and are seldom trivial."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings

from patternc import check, passes
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention
from patternc.source import Source
from patternc.syntax.parse import parse
from tests.strategies import PARAM, Size, attentions, pat_text, sizes


@given(attentions(affine=False, runtime=True), sizes)
def test_the_text_of_a_program_means_what_the_program_means(
    attention: Attention, size: Size
) -> None:
    """Through the parser, the checker and all the passes."""
    source = Source("random.pat", pat_text(attention))
    read = passes.run(check.lower(parse(source), None, {}))[-1][1]
    assert (read.heads, read.kv_heads) == (attention.heads, attention.kv_heads)
    values = {item.name: item.default or 0 for item in attention.params}
    assert values == {item.name: item.default for item in read.params}
    for head in range(attention.heads):
        expected, found = (
            dense_mask(
                one.case_of(head).mask,
                head,
                size.n_q,
                size.n_k,
                size.q_offset,
                values,
            )
            for one in (attention, read)
        )
        np.testing.assert_array_equal(found, expected)


def test_random_masks_are_seldom_full_or_empty() -> None:
    shares = []

    @settings(
        max_examples=80,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(attentions(runtime=True))
    def look(attention: Attention) -> None:
        mask = attention.cases[0].mask
        shares.append(dense_mask(mask, 0, 100, 100, 0, {PARAM: 20}).mean())

    look()
    assert sum(0 < share < 1 for share in shares) > len(shares) / 2
