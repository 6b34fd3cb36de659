"""Standard patterns that choose keys on a CUDA device; else skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from patternc.bench.record import Shape
from patternc.bench.selecting import CHOICES, Choice, compare
from patternc.bench.structured import SINKS, Structured, structured
from tests.bench.test_structured import shares_of
from tests.stdlib.selector_cases import CASES, Case
from tests.stdlib.test_selectors import inputs_of, loaded, tensors


def there(x: Tensor) -> Tensor:
    """On the device, in single precision if it is floating."""
    return (x.float() if x.dtype.is_floating_point else x).cuda()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_it_chooses_what_the_paper_says(case: Case) -> None:
    """Both batch elements, grouped heads, single precision."""
    q, k, v = (x.float() for x in tensors(case.n, case.kv, case.smooth))
    given = case.inputs(case.n)
    wanted = case.wanted(q.double(), k.double(), given).mask
    inputs: dict[str, Any] = {
        name: there(x) for name, x in inputs_of(case, given).items()
    }
    attention = loaded(case)
    plan = attention.plan(q.cuda(), k.cuda(), **inputs)
    here: dict[str, Any] = {name: x.cpu() for name, x in inputs.items()}
    seen = attention.mask(case.n, case.n, plan=plan, **here)
    assert torch.equal(seen.expand(wanted.shape), wanted)
    found = attention(q.cuda(), k.cuda(), v.cuda(), plan=plan, **inputs)
    exact = scaled_dot_product_attention(
        q.double(), k.double(), v.double(), wanted, enable_gqa=True
    )
    exact = torch.where(wanted.any(-1, keepdim=True), exact, 0)
    torch.testing.assert_close(found.cpu().double(), exact, rtol=4e-3, atol=4e-3)


def test_structured_inputs_on_the_device() -> None:
    made = structured(1, 2, 1, 32768, 128, torch.float32, "cuda", seed=4)
    parts = (made.q, made.k, made.v, made.columns, made.slashes, made.shares)
    here = Structured(*(x.cpu() for x in parts))
    attention, _ = shares_of(here)
    for head in range(2):
        sinks = float(attention[head][:, :SINKS].sum(-1).mean())
        assert sinks == pytest.approx(float(here.shares[0, head, 0]), abs=0.15)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_every_choice_is_measured(choice: Choice) -> None:
    found = compare(choice, Shape(1, 8, 2, 8192, 128))
    assert not found.note
    assert 0 < found.density <= 0.51 and 0.3 < found.recall <= 1.01
    assert min(found.plan_ms, found.attend_ms, found.together_ms) > 0
    assert found.kernels
