"""Standard patterns that choose keys: what they choose is what the papers say.

Each is held to a transcription in plain PyTorch (tests/selectors), in float64 on random
tensors, where no two numbers that are ranked are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import patternc
from patternc import stdlib_patterns
from patternc.planned import Plan
from tests.selectors.flexprefill import flexprefill
from tests.selectors.per_token import nsa_selected
from tests.selectors.sparge import sparge
from tests.selectors.video import paro
from tests.stdlib.selector_cases import CASES, KV, RENAMED, B, Case, H

FILES = Path(stdlib_patterns.__file__).parent
D = 16


@cache
def tensors(n: int, kv: int, smooth: bool) -> tuple[Tensor, Tensor, Tensor]:
    """q [B, H, n, D], k and v [B, kv, n, D] in float64."""
    generator = torch.Generator().manual_seed(n + kv)
    found = []
    for heads in (H, kv, kv):
        x = torch.randn(B, heads, n, D, generator=generator, dtype=torch.float64)
        if smooth:
            shape = (B, heads, -(-n // 16), D)
            drift = torch.randn(shape, generator=generator, dtype=torch.float64)
            strength = torch.rand(shape[:3], generator=generator, dtype=torch.float64)
            drift = 3 * strength[..., None] * drift
            x = x + drift.repeat_interleave(16, dim=2)[:, :, :n]
        found.append(x)
    return found[0], found[1], found[2]


def loaded(case: Case) -> patternc.Attention:
    values: dict[str, Any] = dict(case.values)
    values["count"] = H
    if case.name != "sparsifiner":
        values["kv_count"] = case.kv
    path = FILES / f"{case.name}.pat"
    return patternc.load(path, entry=case.entry or case.name, **values)


def inputs_of(case: Case, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as the file names them."""
    name = RENAMED.get(case.name)
    return {name: given["scores"]} if name else dict(given)


def members(plan: Plan, name: str) -> Tensor:
    """A table whose index is the group itself: groups below 0 are never chosen."""
    table = plan.tables[name]
    selection = next(s for s in plan.attention.selections if s.table == name)
    for place in range(len(selection.keys)):
        first = plan.places.get(selection.first(place), 0)
        size = table.shape[2 + place]
        assert not table.narrow(2 + place, 0, -first).any()
        table = table.narrow(2 + place, -first, size + first)
    return table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_it_chooses_what_the_paper_says(case: Case) -> None:
    attention = loaded(case)
    q, k, v = tensors(case.n, case.kv, case.smooth)
    given = case.inputs(case.n)
    wanted = case.wanted(q, k, given)
    inputs = inputs_of(case, given)
    plan = attention.plan(q, k, **inputs)
    for table, chosen in case.sets.items():
        found, right = members(plan, table), wanted.sets[chosen]
        found = found[tuple(slice(size) for size in right.shape)]
        assert torch.equal(found, right), table
    seen = attention.mask(case.n, case.n, plan=plan, **inputs)
    assert torch.equal(seen.expand(wanted.mask.expand(B, H, -1, -1).shape), wanted.mask)
    assert not wanted.mask.all() and wanted.mask.any(-1).float().mean() > 0.9

    exact = scaled_dot_product_attention(q, k, v, wanted.mask, enable_gqa=True)
    # causal_sparge may keep for a row of blocks one that its first queries do not see.
    exact = torch.where(wanted.mask.any(-1, keepdim=True), exact, 0)
    torch.testing.assert_close(attention(q, k, v, plan=plan, **inputs), exact)


def test_a_call_plans_for_itself() -> None:
    case = CASES[0]
    q, k, v = tensors(case.n, case.kv, False)
    exact = scaled_dot_product_attention(
        q, k, v, case.wanted(q, k, {}).mask, enable_gqa=True
    )
    for backend in ("tiled", "reference"):
        torch.testing.assert_close(loaded(case).backend(backend)(q, k, v), exact)


def test_flexprefill_has_heads_of_both_kinds() -> None:
    """Else the cases above would try only one branch."""
    q, k, _ = tensors(120, KV, False)
    for arguments in ((0.8, 0.057, 20, 8, 128), (0.7, 0.057, 10, 8, 8)):
        aware = flexprefill(q, k, *arguments).sets["aware"]
        assert 0 < int(aware.sum()) < aware.numel()


def test_both_kinds_of_blocks_are_there_for_sparge() -> None:
    q, k, _ = tensors(120, KV, True)
    sets = sparge(q, k, 0.8, similar=0.5, block_q=16, block_k=8).sets
    for name in ("alike_q", "alike_k"):
        assert 0.2 < float(sets[name].double().mean()) < 0.95


def test_the_query_heads_of_a_group_choose_together_in_nsa() -> None:
    q, k, _ = tensors(120, KV, False)
    chosen = nsa_selected(q, k, 8, 6).sets["chosen"]
    assert torch.equal(chosen[:, 0], chosen[:, 1])
    assert not torch.equal(chosen[:, 1], chosen[:, 2])


def test_axis_blocks_is_paro_with_two_of_its_orders() -> None:
    """The table of a step and layer is an input: one program serves all of them."""
    clip, text, heads = (3, 4, 5), 6, 48
    generator = torch.Generator().manual_seed(0)
    bits = torch.rand(heads, 8, 8, generator=generator) < 0.4
    bits |= torch.eye(8, dtype=torch.bool)
    values: dict[str, Any] = {
        "text": text,
        "frames": 3,
        "height": 4,
        "width": 5,
        "block": 8,
    }
    attention = patternc.load(FILES / "axis_blocks.pat", **values)
    n = text + 60
    orders = tuple("HWF" if head % 2 == 0 else "WHF" for head in range(heads))
    wanted = paro(bits, clip, orders, text, 8).mask[0]
    assert torch.equal(attention.mask(n, n, bits=bits), wanted)


def test_a_plan_of_sparsed_serves_later_steps() -> None:
    case = next(case for case in CASES if case.name == "sparsed")
    attention = loaded(case)
    q, k, v = tensors(case.n, case.kv, False)
    plan = attention.plan(q, k)
    later = q.roll(3, dims=2)
    wanted = case.wanted(q, k, {}).mask
    exact = scaled_dot_product_attention(later, k, v, wanted)
    torch.testing.assert_close(attention(later, k, v, plan=plan), exact)
    assert not torch.equal(
        attention.plan(later, k).tables["early"], plan.tables["early"]
    )
