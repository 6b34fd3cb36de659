"""The published masks that come from scores: O3 and G15, chosen by selections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from patternc.cli.mask import digest
from tests.conformance.rows import ROWS, inputs
from tests.selection.programs import attention


def test_vertical_slash_from_masses(tmp_path: Path) -> None:
    """O3: the columns and diagonals that have any mass are the top 4 and 6."""
    clauses = """input column[k] : float
        input slash[512] : float
        let verticals = top(4, column[k])
        let diagonals = top(6, slash[q - k])
        mask causal & (k in verticals | q - k in diagonals)"""
    attn = attention(tmp_path, clauses)
    given: dict[str, Any] = {
        "column": torch.from_numpy(inputs("O3")["vertical"]).float(),
        "slash": torch.from_numpy(inputs("O3")["slash"]).float(),
    }
    q = k = torch.zeros(1, 1, 512, 16)
    plan = attn.plan(q, k, **given)
    check(attn.mask(512, 512, plan=plan, **given)[0, 0].numpy(), "O3")


def test_video_sparse_attention_from_scores(tmp_path: Path) -> None:
    """G15: three tiles by (7q + 13k) mod 17, the own one always."""
    clauses = """let scored = 1.0 * ((7 * (q // 64) + 13 * (k // 64)) % 17)
        let chosen = top(3, scored per q // 64, always q // 64 == k // 64)
        mask (q // 64, k // 64) in chosen"""
    attn = attention(tmp_path, clauses)
    q = k = torch.zeros(1, 1, 512, 16)
    check(attn.plan(q, k).mask(0).numpy(), "G15")


def check(mask: np.ndarray, name: str) -> None:
    found, row = digest(mask), ROWS[name]
    tiles = (found.tiles.empty, found.tiles.partial, found.tiles.full)
    assert (found.visible, tiles, found.sha256) == (row.visible, row.tiles, row.sha256)
