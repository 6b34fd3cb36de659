"""Random programs: the generated kernel, in the interpreter, and the tiled backend.

Both within the budget that a float64 run of the reference gives, for every size,
offset, head grouping and schedule that is drawn.
"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patternc.ir.nodes import Attention
from patternc.passes import run
from patternc.plan.kernel import Schedule
from patternc.plan.tiling import plan
from patternc.verify import verify
from tests.strategies import PARAM, attentions, offsets

lengths = st.one_of(st.sampled_from((1, 16, 17, 33, 64)), st.integers(1, 70))
blocks = st.sampled_from((16, 32))


@settings(max_examples=settings().max_examples // 2)
@given(
    attentions(affine=False, runtime=True),
    st.builds(Schedule, blocks, blocks),
    st.tuples(lengths, lengths),
    offsets,
    st.integers(-20, 200),
)
def test_backends_equal_the_reference(
    attention: Attention,
    schedule: Schedule,
    size: tuple[int, int],
    q_offset: int | None,
    width: int,
) -> None:
    kernel = plan(run(attention)[-1][1], schedule)
    results = verify(
        kernel,
        ["tiled", "triton"],
        dtypes=[torch.float32],
        sizes=[size],
        params={PARAM: width},
        batch=1,
        q_offset=q_offset,
    )
    assert [result for result in results if not result.ok] == []
