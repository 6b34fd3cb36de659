"""The attentions of standard files that choose keys, each beside its transcription.

In: nothing. Out: `CASES`. Not its job: comparing them (`test_selectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.selectors.chosen import Chosen
from tests.selectors.flexprefill import flexprefill
from tests.selectors.minference import block_topk, vertical_slash
from tests.selectors.per_token import longheads, moba, nsa_selected, quest, sparsifiner
from tests.selectors.sparge import sparge
from tests.selectors.sparsed import sparsed
from tests.selectors.video import (
    jenga,
    partition,
    video_blocks,
    vmoba,
    vmoba_topk,
)
from tests.selectors.xattention import xattention

B, H, KV = 2, 4, 2
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
        "vertical_slash",
        of(vertical_slash, 30, 12, last=64, near=2, tile=16),
        {"columns": 30, "slashes": 12, "near": 2, "tile": 16},
        note="code",
        sets={"verticals": "verticals"},
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
        "flexprefill",
        of(flexprefill, 0.3, 0.0, 1, 60, 60, whole_like_code=False),
        {"gamma": 0.3, "tau": 0.0, "least": 1, "block": 60, "unit": 60, "short": 0},
        note="short",
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
