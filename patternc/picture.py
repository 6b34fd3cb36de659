"""Pictures of masks: in the terminal, and as PNG files.

In: the mask of one head as a bool array [n_q, n_k] and, for the overlay, attention
weights of the same shape. Out: text of half blocks, or the bytes of a PNG. A picture
is smaller than a long mask: one cell then stands for many pairs. Not its job: making
masks (`patternc.ir.evaluate`, `patternc.plan.expand`) and writing files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_HIDDEN = np.array([246.0, 246.0, 242.0])
_VISIBLE = np.array([31.0, 78.0, 121.0])
_ATTENTION_LOW = np.array([252.0, 252.0, 250.0])
_ATTENTION_HIGH = np.array([20.0, 20.0, 30.0])
_KEPT = np.array([22.0, 130.0, 200.0])
_LOST = np.array([214.0, 69.0, 35.0])
_LEAST_WEIGHT = 1e-5
_GAP = 8


def terminal_picture(mask: Bools, columns: int = 64) -> str:
    """The mask in half blocks, at most `columns` wide, queries downwards.

    A cell is filled if any of its pairs is visible, so that a thin line never
    vanishes. Raises `ValueError` for a mask without pairs.
    """
    rows = max(1, round(columns * mask.shape[0] / mask.shape[1]))
    cells = shrink(mask, min(rows, 2 * columns), columns) > 0
    if len(cells) % 2:
        cells = np.vstack([cells, np.zeros((1, cells.shape[1]), dtype=np.bool_)])
    lines = []
    for upper, lower in zip(cells[0::2], cells[1::2], strict=True):
        line = "".join(
            " ▄▀█"[2 * int(a) + int(b)] for a, b in zip(upper, lower, strict=True)
        )
        lines.append(f"│{line}│")
    edge = "─" * cells.shape[1]
    return "\n".join([f"┌{edge}┐", *lines, f"└{edge}┘"])


def mask_png(mask: Bools, side: int = 768) -> bytes:
    """A PNG of the mask, at most `side` pixels a side: dark where it is visible.

    Raises `ValueError` for a mask without pairs.
    """
    share = shrink(mask, side, side)[..., None]
    # A square root keeps a single line of a long mask in sight.
    return _png(_pixels(_HIDDEN + np.sqrt(share) * (_VISIBLE - _HIDDEN), side))


def overlay(mask: Bools, attention: Floats, side: int = 768) -> Pixels:
    """The mask over attention weights [n_q, n_k], both of one head: pixels
    [rows, columns, 3], at most `side` a side.

    The darker, the more weight (the largest of a cell, on a logarithmic scale); blue
    where the mask keeps the pair, red where it drops it.
    Raises `ValueError` for shapes that differ or a mask without pairs.
    """
    if mask.shape != attention.shape:
        raise ValueError(f"mask {mask.shape} and attention {attention.shape} differ")
    kept = _strength(np.where(mask, attention, 0.0), side)
    lost = _strength(np.where(mask, 0.0, attention), side)
    seen = (shrink(mask, side, side) > 0)[..., None]
    dark = np.maximum(kept, lost)[..., None]
    base = _ATTENTION_LOW + dark * (_ATTENTION_HIGH - _ATTENTION_LOW)
    tint = np.where(seen, _KEPT, _LOST)
    # Pairs without weight and outside the mask stay paper-white.
    amount = np.where(seen, 0.25 + 0.35 * dark, 0.6 * dark)
    return _pixels(base + amount * (tint - base), side)


def grid_png(pictures: Sequence[Pixels], columns: int) -> bytes:
    """A PNG of pictures of one size, row by row, `columns` to a row."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    pitch_y, pitch_x = height + _GAP, width + _GAP
    sheet = np.full(
        (rows * pitch_y + _GAP, columns * pitch_x + _GAP, 3), 255, dtype=np.uint8
    )
    for number, picture in enumerate(pictures):
        top = _GAP + number // columns * pitch_y
        left = _GAP + number % columns * pitch_x
        sheet[top : top + height, left : left + width] = picture
    return _png(sheet)


def shrink(values: NDArray[np.bool_] | Floats, rows: int, columns: int) -> Floats:
    """The mean of each cell when [n_q, n_k] is cut into at most `rows` x `columns`.

    Raises `ValueError` if an axis is empty.
    """
    if 0 in values.shape:
        raise ValueError("there is nothing to draw in a mask without pairs")
    row_cuts = _cuts(values.shape[0], rows)
    column_cuts = _cuts(values.shape[1], columns)
    by_rows = np.add.reduceat(values, row_cuts, axis=0, dtype=np.float64)
    totals = np.add.reduceat(by_rows, column_cuts, axis=1)
    heights = np.diff(np.append(row_cuts, values.shape[0]))
    widths = np.diff(np.append(column_cuts, values.shape[1]))
    return np.asarray(totals / (heights[:, None] * widths[None, :]))


def _strength(weights: Floats, side: int) -> Floats:
    """The largest weight of each cell, from 0 (nothing) to 1, logarithmic."""
    row_cuts = _cuts(weights.shape[0], side)
    column_cuts = _cuts(weights.shape[1], side)
    by_rows = np.maximum.reduceat(weights, row_cuts, axis=0)
    largest = np.maximum.reduceat(by_rows, column_cuts, axis=1)
    scaled = np.log10(np.maximum(largest, _LEAST_WEIGHT) / _LEAST_WEIGHT)
    return np.asarray(np.clip(scaled / -np.log10(_LEAST_WEIGHT), 0.0, 1.0))


def _cuts(length: int, cells: int) -> NDArray[np.int64]:
    """Where the cells begin when `length` is cut into at most `cells`."""
    cells = min(length, cells)
    return np.arange(cells, dtype=np.int64) * length // cells


def _pixels(colours: Floats, side: int) -> Pixels:
    """8-bit pixels of colours [rows, columns, 3]; small pictures are magnified."""
    pixels = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    times = max(1, min(8, side // max(pixels.shape[:2])))
    return np.repeat(np.repeat(pixels, times, axis=0), times, axis=1)


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    # 64 colours are enough for two hues and halve the file.
    picture = Image.fromarray(pixels).quantize(64, dither=Image.Dither.NONE)
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
