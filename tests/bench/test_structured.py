"""The generator of structured inputs: its attention is what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patternc.bench.structured import COLUMNS, NEAR, SINKS, Structured, structured

ROWS = 32
"""The last queries, whose attention is measured."""


def shares_of(made: Structured, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Attention of the last rows [H, rows, N], and their distances to keys."""
    n, d = made.q.shape[2:]
    keys = made.k[0].repeat_interleave(made.q.shape[1] // made.k.shape[1], dim=0)
    logits = made.q[0, :, -rows:].float() @ keys.float().mT / d**0.5
    distance = torch.arange(n - rows, n)[:, None] - torch.arange(n)
    return logits.masked_fill(distance < 0, -torch.inf).softmax(-1), distance


@pytest.mark.parametrize(("n", "d"), [(4096, 128), (2048, 64)])
def test_the_mass_is_where_it_was_put(n: int, d: int) -> None:
    made = structured(1, 4, 2, n, d, torch.float32, seed=3)
    attention, distance = shares_of(made)
    local = (distance >= 0) & (distance < NEAR)
    for head in range(4):
        sink, near, columns, slashes, _ = made.shares[0, head].tolist()
        rows = attention[head]
        assert float(rows[:, :SINKS].sum(-1).mean()) == pytest.approx(sink, abs=0.15)
        assert float((rows * local).sum(-1).mean()) == pytest.approx(near, abs=0.1)
        heavy = rows[:, made.columns[0, head // 2]].sum(-1)
        assert float(heavy.mean()) == pytest.approx(columns, abs=0.1)
        found = 0.0
        for offset in made.slashes[0, head].tolist():
            beside = (distance - offset).abs() < NEAR // 2
            found += float((rows * beside).sum(-1).mean())
        assert found == pytest.approx(slashes, abs=0.1)


def test_few_keys_hold_most_of_it_in_earlier_rows_too() -> None:
    """The sinks, 64 neighbours, the columns, and what is near the diagonals."""
    made = structured(1, 2, 1, 4096, 64, torch.float32, seed=1)
    cut = Structured(
        made.q[:, :, :2048],
        made.k[:, :, :2048],
        made.v,
        made.columns,
        made.slashes,
        made.shares,
    )
    attention, distance = shares_of(cut)
    for head in range(2):
        seen = (distance < NEAR) | (torch.arange(2048) < SINKS)
        seen |= torch.isin(torch.arange(2048), made.columns[0, 0])
        for offset in made.slashes[0, head].tolist():
            seen |= (distance - offset).abs() < NEAR // 2
        assert float(seen.float().mean()) < 0.15
        assert float((attention[head] * seen).sum(-1).mean()) > 0.75


def test_it_is_the_same_again_and_heads_differ() -> None:
    first, again = (structured(2, 4, 2, 512, 32, seed=7) for _ in range(2))
    other = structured(2, 4, 2, 512, 32, seed=8)
    assert torch.equal(first.q, again.q) and torch.equal(first.k, again.k)
    assert torch.equal(first.v, again.v) and not torch.equal(first.q, other.q)
    assert first.q.dtype == torch.bfloat16 and first.q.shape == (2, 4, 512, 32)
    assert first.k.shape == first.v.shape == (2, 2, 512, 32)
    assert len(set(first.slashes.flatten().tolist())) > 4
    assert len(set(first.columns[0, 0].tolist())) == COLUMNS
    assert torch.isfinite(first.q).all() and torch.isfinite(first.k).all()


def test_long_calls_keep_their_shares() -> None:
    """64K keys, of which single precision knows no angle: one head, its last rows."""
    made = structured(1, 1, 1, 65536, 128, torch.float32, seed=2)
    attention, distance = shares_of(made)
    rows = attention[0]
    assert float(rows[:, :SINKS].sum(-1).mean()) == pytest.approx(
        float(made.shares[0, 0, 0]), abs=0.1
    )
    local = (distance >= 0) & (distance < NEAR)
    assert float((rows * local).sum(-1).mean()) > 0.5 * float(made.shares[0, 0, 1])


@pytest.mark.parametrize(("n", "d"), [(512, 24), (512, 36), (100, 64)])
def test_what_it_cannot_make(n: int, d: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        structured(1, 1, 1, n, d)
