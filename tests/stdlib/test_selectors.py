"""Standard patterns that choose keys: what they choose is what the papers say.

Each is held to a transcription in plain PyTorch (tests/selectors), in float64 on random
tensors, where no two numbers that are ranked are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from tests.selectors.chosen import Chosen
from tests.selectors.flexprefill import flexprefill
from tests.selectors.minference import block_topk, vertical_slash
from tests.selectors.per_token import longheads, moba, nsa_selected, quest, sparsifiner
from tests.selectors.sparge import sparge
from tests.selectors.sparsed import sparsed
from tests.selectors.video import (
    jenga,
    paro,
    partition,
    video_blocks,
    vmoba,
    vmoba_topk,
)
from tests.selectors.xattention import xattention

FILES = Path(stdlib_patterns.__file__).parent
B, H, KV, D = 2, 4, 2, 16
CLIP = (4, 6, 5)
VIDEO = {"frames": CLIP[0], "height": CLIP[1], "width": CLIP[2]}
TILES = [partition(layer, CLIP, 2, (1, 2, 3), (2, 3, 5)) for layer in range(3)]

Inputs = dict[str, Any]
Transcription = Callable[[Tensor, Tensor, Inputs], Chosen]


def of(transcription: Callable[..., Chosen], *args: Any, **named: Any) -> Transcription:
    """A transcription that takes only queries and keys."""
    return lambda q, k, _inputs: transcription(q, k, *args, **named)


@dataclass(frozen=True, slots=True)
class Case:
    """An attention of a standard file, its parameters, and its transcription.

    `sets` are the lets whose members are compared one by one, by the transcription's
    name of the set; `smooth` adds a slow drift along the tokens, so that blocks are
    alike; `inputs` makes those of a call from its length.
    """

    name: str
    wanted: Transcription
    values: Mapping[str, float] = field(default_factory=dict)
    entry: str = ""
    n: int = 120
    sets: Mapping[str, str] = field(default_factory=dict)
    smooth: bool = False
    inputs: Callable[[int], Inputs] = field(default=lambda n: {})
    kv: int = KV
    note: str = ""

    @property
    def title(self) -> str:
        return f"{self.entry or self.name}{'-' if self.note else ''}{self.note}"


def scores(columns: Callable[[int], int]) -> Callable[[int], Inputs]:
    """Predicted scores of each query, as the input that a file declares."""

    def make(n: int) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        shape = (B, H, n, columns(n))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return lambda n: {"scores": make(n)}


def near(n: int) -> Inputs:
    """Blocks on and beside the diagonal, and one pair that is far apart."""
    rows = torch.arange(-(-n // 8))
    table = (rows[:, None] - rows).abs() <= 1
    table[0, 9] = table[9, 0] = True
    return {"near": table}


SHARES = torch.tensor([0.5, 0.9, 0.7, 1.0], dtype=torch.float64)
LINES = {"few_columns": "columns", "few_diagonals": "diagonals"}

CASES = (
    Case(
        "vertical_slash",
        of(vertical_slash, 40, 30, last=64, near=12),
        {"columns": 40, "slashes": 30, "near": 12},
        sets={"verticals": "verticals", "diagonals": "diagonals"},
    ),
    Case(
        "vertical_slash",
        of(vertical_slash, 3, 200, last=16, near=100),
        {"columns": 3, "slashes": 200, "last": 16},
        note="forced",
        sets={"verticals": "verticals", "diagonals": "diagonals"},
    ),
    Case(
        "block_topk",
        of(block_topk, 3, block=16),
        {"blocks": 3, "block": 16},
        sets={"chosen": "chosen"},
    ),
    Case(
        "flexprefill",
        of(flexprefill, 0.8, 0.057, 20, 8, 128),
        {"gamma": 0.8, "tau": 0.057, "least": 20, "block": 8},
        note="code",
    ),
    Case(
        "flexprefill",
        of(flexprefill, 0.7, 0.057, 10, 8, 8, drop_like_code=False),
        {
            "gamma": 0.7,
            "tau": 0.057,
            "least": 10,
            "block": 8,
            "unit": 8,
            "crossing": 1,
        },
        note="paper",
    ),
    Case(
        "xattention",
        of(xattention, torch.full((H,), 0.8), stride=4, block=8),
        {"p": 0.8, "stride": 4, "block": 8},
        sets={"chosen": "chosen"},
    ),
    Case(
        "xattention",
        of(xattention, SHARES, stride=8, block=16),
        {"stride": 8, "block": 16},
        "xattention_by_head",
        sets={"chosen": "chosen"},
        inputs=lambda n: {"threshold": SHARES},
    ),
    Case(
        "sparge",
        of(sparge, 0.8, similar=0.5, block_q=16, block_k=8),
        {"p": 0.8, "similar": 0.5, "block_q": 16, "block_k": 8},
        smooth=True,
        sets={"alike_q": "alike_q", "alike_k": "alike_k", "chosen": "chosen"},
    ),
    Case(
        "sparge",
        of(sparge, None, 0.3, -0.1, 8, 16),
        {"part": 0.3, "similar": -0.1, "block_q": 8, "block_k": 16},
        "sparge_part",
        smooth=True,
        sets={"chosen": "chosen"},
    ),
    Case(
        "sparge",
        of(sparge, 0.6, similar=0.5, block_q=16, block_k=8, is_causal=True),
        {"p": 0.6, "similar": 0.5, "block_q": 16, "block_k": 8},
        "causal_sparge",
        smooth=True,
    ),
    Case(
        "sparsed",
        of(sparsed, 80, 0.3, 8),
        {"prompt": 80, "select": 0.3, "block": 8},
        kv=4,
    ),
    Case(
        "moba",
        of(moba, 16, 3),
        {"chunk": 16, "take": 3},
        sets={"chosen": "chosen"},
    ),
    *(
        Case(
            "vmoba",
            of(vmoba, video_blocks(CLIP, tile), 0.3),
            {
                **VIDEO,
                "tau": 0.3,
                **dict(zip(("tile_f", "tile_y", "tile_x"), tile, strict=True)),
            },
            note=f"layer{layer}",
            sets={"chosen": "chosen"},
        )
        for layer, tile in enumerate(TILES)
    ),
    Case(
        "vmoba",
        of(vmoba, video_blocks(CLIP, TILES[2]), 0.25, "query_head", 1),
        {**VIDEO, "tile_f": 2, "tile_y": 3, "tile_x": 5},
        "vmoba_by_query",
        sets={"chosen": "chosen"},
        note="code",
    ),
    Case(
        "vmoba",
        of(vmoba, video_blocks(CLIP, TILES[2]), 0.25, "query_head", 0),
        {**VIDEO, "tile_f": 2, "tile_y": 3, "tile_x": 5, "least": 1},
        "vmoba_by_query",
        sets={"chosen": "chosen"},
        note="paper",
    ),
    Case(
        "vmoba",
        of(vmoba_topk, video_blocks(CLIP, TILES[2]), 2),
        {**VIDEO, "tile_f": 2, "tile_y": 3, "tile_x": 5, "take": 2},
        "vmoba_topk",
        sets={"chosen": "chosen"},
    ),
    Case(
        "longheads",
        lambda q, k, given: longheads(given["scores"], 8, 5, 48),
        {"window": 8, "take": 5, "begin": 48},
        inputs=scores(lambda n: -(-n // 8)),
        kv=4,
    ),
    Case(
        "longheads",
        lambda q, k, given: longheads(given["scores"], 8, 5, 48, own=0),
        {"window": 8, "take": 5, "begin": 48, "own": 0},
        inputs=scores(lambda n: -(-n // 8)),
        kv=4,
        note="code",
    ),
    Case(
        "quest",
        of(quest, 40, 8),
        {"budget": 40, "page": 8},
        kv=4,
        sets={"pages": "chosen"},
    ),
    Case(
        "quest",
        of(quest, 40, 8, 2),
        {"budget": 40, "page": 8, "newest": 2},
        sets={"pages": "chosen"},
        note="newest",
    ),
    Case(
        "nsa_selected",
        of(nsa_selected, 8, 6),
        {"block": 8, "take": 6},
        note="group",
    ),
    Case(
        "jenga",
        lambda q, k, given: jenga(q, k, given["near"][:13, :13], 16, 0.3, 0.8, 8),
        {"text": 16, "block": 8, "drop": 0.8},
        inputs=near,
        kv=4,
        sets={"chosen": "chosen"},
    ),
    Case(
        "sparsifiner",
        lambda q, k, given: sparsifiner(given["scores"], 30),
        {"percent": 30},
        n=50,
        inputs=scores(lambda n: n),
        kv=4,
        sets={"best": "chosen"},
    ),
)

RENAMED = {"longheads": "rank", "sparsifiner": "predicted"}


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
    values = dict(case.values)
    values["count"] = H
    if case.name != "sparsifiner":
        values["kv_count"] = case.kv
    path = FILES / f"{case.name}.pat"
    return patternc.load(path, entry=case.entry or case.name, **values)


def members(plan: Plan, name: str) -> Tensor:
    """A table whose index is the group itself: groups below 0 are never chosen."""
    table = plan.tables[name]
    selection = next(s for s in plan.attention.selections if s.table == name)
    for place in range(len(selection.keys)):
        first = plan.places.get(selection.first(place), 0)
        below, table = table.split([-first, table.shape[2 + place] + first], 2 + place)
        assert not below.any()
    return table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_it_chooses_what_the_paper_says(case: Case) -> None:
    attention = loaded(case)
    if case.name == "sparsifiner":
        q, k, v = tensors(case.n, H, False)
    else:
        q, k, v = tensors(case.n, case.kv, case.smooth)
    given = case.inputs(case.n)
    wanted = case.wanted(q, k, given)
    name = RENAMED.get(case.name)
    inputs = {name: given["scores"]} if name else given
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
    values = {"text": text, "frames": 3, "height": 4, "width": 5, "block": 8}
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
