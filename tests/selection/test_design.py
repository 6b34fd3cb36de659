"""The two programs of the design, exactly as written, against plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import patternc

PROGRAMS = """\
attention vertical_slash(columns = 1000, slashes = 6096) { # MInference 1.0
    heads 32 kv 8
    let probe = softmax(scores where causal for q >= N - 64)          # rows of the last 64 queries
    let verticals = top(columns, sum(probe by k),     always k < 30)
    let diagonals = top(slashes, sum(probe by q - k), always q - k < 100)
    mask causal & (k in verticals | q - k in diagonals)
}

attention top_p_blocks(p = 0.9) {                          # XAttention / SpargeAttn / FlexPrefill family
    heads 32 kv 8
    let coarse = softmax(mean(Q by q // 128) @ mean(K by k // 128) * scale where (causal)[q // 128, k // 128])
    let chosen = top_p(p, coarse per q // 128, always k // 128 == 0 | k // 128 == q // 128)
    mask causal & (q // 128, k // 128) in chosen
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "design.pat"
    file.write_text(PROGRAMS)
    return file


def drawn(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 32, n, 16, generator=generator).double()
    k = torch.randn(1, 8, n, 16, generator=generator).double()
    return q, k


def test_vertical_slash(path: Path) -> None:
    attn = patternc.load(path, "vertical_slash", columns=40, slashes=120)
    q, k = drawn(150)
    keys = k.repeat_interleave(4, 1)
    at = torch.arange(150)
    causal = at[None, :] <= at[:, None]
    logits = (q @ keys.mT / 4).masked_fill(~causal, -torch.inf)
    probe = torch.softmax(logits, -1)[:, :, -64:]
    columns = probe.sum(2)
    columns[..., :30] = torch.inf
    slashes = torch.zeros(1, 32, 150, dtype=torch.float64)
    for row in range(64):
        distance = 150 - 64 + row - at
        seen = distance >= 0
        slashes[..., distance[seen]] += probe[:, :, row, seen]
    slashes[..., :100] = torch.inf
    none = torch.zeros_like(columns, dtype=torch.bool)
    verticals = none.scatter(-1, columns.topk(40, -1).indices, True)
    diagonals = none.scatter(-1, slashes.topk(120, -1).indices, True)
    apart = (at[:, None] - at[None, :]).clamp(min=0)
    wanted = causal & (verticals[:, :, None, :] | diagonals[..., apart])
    assert torch.equal(attn.mask(150, 150, plan=attn.plan(q, k)), wanted)


def test_top_p_blocks(path: Path) -> None:
    attn = patternc.load(path, "top_p_blocks", p=0.7)
    q, k = drawn(600)  # five blocks, the last one of 88 tokens
    keys = k.repeat_interleave(4, 1)
    parts = [slice(128 * at, 128 * at + 128) for at in range(5)]
    pooled = [
        torch.stack([x[:, :, part].mean(2) for part in parts], 2) for x in (q, keys)
    ]
    block = torch.arange(5)
    causal = block[None, :] <= block[:, None]
    logits = (pooled[0] @ pooled[1].mT / 4).masked_fill(~causal, -torch.inf)
    coarse = torch.softmax(logits, -1)
    forced = causal & ((block == 0) | (block[None, :] == block[:, None]))
    chosen = torch.zeros_like(coarse, dtype=torch.bool)
    for head in range(32):
        for row in range(5):
            mass = coarse[0, head, row]
            order = sorted(range(row + 1), key=lambda j: (not forced[row, j], -mass[j]))
            before = 0.0
            for j in order:
                if before < 0.7 or forced[row, j]:
                    chosen[0, head, row, j] = True
                before += float(mass[j])
    at = torch.arange(600)
    tokens = chosen[:, :, at // 128][..., at // 128] & (at[None, :] <= at[:, None])
    assert torch.equal(attn.mask(600, 600, plan=attn.plan(q, k)), tokens)
