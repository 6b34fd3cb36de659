"""Standard patterns that choose keys, in Triton's interpreter: one of each file."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.stdlib.selector_cases import CASES, Case
from tests.stdlib.test_selectors import inputs_of, loaded, tensors

ONE_OF_EACH = list({case.name: case for case in CASES}.values())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.title)
def test_the_module_chooses_and_attends(case: Case) -> None:
    """Single precision is enough to rank these numbers as the papers' steps do."""
    q, k, v = (x[:1].float() for x in tensors(case.n, case.kv, case.smooth))
    given = {
        name: single(value[:1] if name == "scores" else value)
        for name, value in case.inputs(case.n).items()
    }
    inputs = inputs_of(case, given)
    attention = loaded(case).backend("triton")
    plan = attention.plan(q, k, **inputs)
    wanted = case.wanted(q.double(), k.double(), given).mask[:1]
    seen = attention.mask(case.n, case.n, plan=plan, **inputs)
    assert torch.equal(seen.expand(wanted.shape), wanted)
    found = attention(q, k, v, plan=plan, **inputs)
    exact = attention.backend("reference")(q, k, v, plan=plan, **inputs)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def single(x: Tensor) -> Tensor:
    return x.float() if x.dtype.is_floating_point else x
