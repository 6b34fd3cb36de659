"""Pictures: what is drawn is what is there, at any size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from patternc.picture import grid_png, mask_png, overlay, shrink, terminal_picture

CAUSAL = np.tri(300, dtype=np.bool_)


def _grey(png: bytes) -> NDArray[np.int64]:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("L"), dtype=np.int64)


def test_shrinking_keeps_the_density() -> None:
    cells = shrink(CAUSAL, 30, 60)
    assert cells.shape == (30, 60)
    assert cells.mean() == pytest.approx(CAUSAL.mean())
    assert shrink(CAUSAL, 1000, 1000).shape == (300, 300)


def test_a_thin_line_never_vanishes() -> None:
    line = np.zeros((1000, 1000), dtype=np.bool_)
    line[:, 617] = True
    rows = terminal_picture(line, 40).splitlines()[1:-1]
    assert len(rows) == 20 and all("█" in row for row in rows)
    grey = _grey(mask_png(line, 100))
    assert (grey[:, 61] < grey[:, 60]).all()


def test_an_odd_number_of_rows_is_drawn() -> None:
    shown = terminal_picture(np.ones((3, 3), dtype=np.bool_))
    assert shown.splitlines() == ["┌───┐", "│███│", "│▀▀▀│", "└───┘"]


def test_the_overlay_tells_kept_from_lost_attention() -> None:
    weights = np.where(CAUSAL, 1 / 300, 0.0)
    mask = CAUSAL & ~np.tri(300, k=-100, dtype=np.bool_)
    red, _, blue = np.moveaxis(overlay(mask, weights, 300).astype(np.int64), 2, 0)
    assert (blue > red)[mask].all()
    assert (red > blue)[CAUSAL & ~mask].all()
    assert (np.abs(red - blue) < 8)[~CAUSAL].all()  # paper, neither kept nor lost


def test_the_grid_holds_every_picture() -> None:
    weights = np.where(CAUSAL, 1 / 300, 0.0)
    pictures = [overlay(CAUSAL, weights, 100)] * 4
    with Image.open(io.BytesIO(grid_png(pictures, 3))) as sheet:
        assert sheet.size == (3 * 108 + 8, 2 * 108 + 8)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="without pairs"):
        terminal_picture(np.zeros((0, 5), dtype=np.bool_))
    with pytest.raises(ValueError, match="differ"):
        overlay(CAUSAL, np.zeros((2, 2)))
