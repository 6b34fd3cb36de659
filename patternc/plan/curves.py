"""Space-filling curves through boxes of any size.

In: integer coordinates. Out: for each point a number that says where on the curve it
lies; points sorted by it are in the curve's order. Not its job: segments and tokens
(`plan.order`).

A box whose sides are no powers of two, or not equal, lies in the smallest cube of such
sides that holds it; the curve is that of the cube, less the points outside of the box.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

from patternc.ir.evaluate import Ints
from patternc.ir.nodes import CurveKind


def place_on_curve(kind: CurveKind, coordinates: Ints, bits: int) -> Ints:
    """The place of each point, int64 [n], on the curve of the cube of side 2**bits.

    `coordinates` is int64 [axes, n], each in `[0, 2**bits)`, outermost axis first;
    `axes * bits` must be below 63.
    """
    match kind:
        case CurveKind.MORTON:
            return _interleaved(coordinates, bits)
        case CurveKind.HILBERT:
            return _interleaved(_transposed(coordinates, bits), bits)
        case _:
            assert_never(kind)


def _interleaved(numbers: Ints, bits: int) -> Ints:
    """The bits of all numbers in turn, the highest of the first one foremost."""
    place = np.zeros(numbers.shape[1], dtype=np.int64)
    for bit in reversed(range(bits)):
        for number in numbers:
            place = place << 1 | (number >> bit & 1)
    return place


def _transposed(coordinates: Ints, bits: int) -> Ints:
    """The place on the Hilbert curve, its bits dealt out to the axes in turn.

    J. Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004).
    """
    x = [axis.copy() for axis in coordinates]
    for bit in reversed(range(1, bits)):
        low = (1 << bit) - 1
        for axis in range(len(x)):  # undo what turned and mirrored the smaller cubes
            is_far = (x[axis] >> bit & 1) == 1
            swapped = np.where(is_far, 0, (x[0] ^ x[axis]) & low)
            x[0] = np.where(is_far, x[0] ^ low, x[0]) ^ swapped
            if axis:
                x[axis] = x[axis] ^ swapped
    for axis in range(1, len(x)):  # Gray code
        x[axis] = x[axis] ^ x[axis - 1]
    flips = np.zeros_like(x[0])
    for bit in reversed(range(1, bits)):
        flips = np.where(x[-1] >> bit & 1, flips ^ ((1 << bit) - 1), flips)
    return np.stack([axis ^ flips for axis in x])
