"""The conformance masks: golden numbers, and the inputs of the programs beside them.

In: the id of a row. Out: what its mask must be, and the arrays that its program reads.
Not its job: the masks themselves, which are the `.pat` files of this folder.

The numbers were computed independently of this project, in NumPy, from definitions
taken from published kernels (FlashMask F*, attention-gym G*, FlashAttention-4 and others
A*, O*). Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """A mask of `n_q` x `n_k` pairs.

    `tiles`: how many of its 64 x 64 tiles are empty, partial and full. `sha256`: the
    first 12 hex digits over the packed bits, row by row.
    """

    n_q: int
    n_k: int
    visible: int
    tiles: tuple[int, int, int]
    empty_rows: int
    sha256: str

    @property
    def q_offset(self) -> int:
        """Rows and columns start together, but for the two that end together."""
        bottom_right = self in (ROWS["A6"], ROWS["A7"])
        return self.n_k - self.n_q if bottom_right else 0


ROWS = {
    "A1": Row(512, 512, 65536, (48, 0, 16), 0, "ee39d069ef8e"),
    "A2": Row(512, 512, 132096, (16, 32, 16), 0, "d307ec14374d"),
    "A4": Row(512, 512, 132096, (0, 48, 16), 0, "6f92b2f998f1"),
    "A5": Row(512, 512, 15984, (49, 15, 0), 0, "aab1bf5ab9a5"),
    "A6": Row(200, 512, 82500, (3, 7, 22), 0, "ddb4af5e8401"),
    "A7": Row(512, 200, 20100, (22, 7, 3), 312, "9294421cf8e2"),
    "F1": Row(512, 512, 262144, (0, 0, 64), 0, "2d864c0b789a"),
    "F2": Row(512, 512, 131328, (28, 8, 28), 0, "40b4cc5217e4"),
    "F3": Row(512, 512, 15888, (49, 15, 0), 0, "22a80e029364"),
    "F4": Row(512, 512, 44953, (44, 16, 4), 0, "648906c02997"),
    "F5": Row(512, 512, 89394, (32, 18, 14), 0, "863f8a0bbf2d"),
    "F7": Row(512, 512, 47312, (30, 34, 0), 0, "897b15070170"),
    "F8": Row(512, 512, 103928, (31, 16, 17), 0, "b3f2955d150e"),
    "F10": Row(512, 512, 163968, (22, 4, 38), 0, "ad55df880b80"),
    "F11": Row(512, 512, 121875, (29, 10, 25), 0, "4d7b24fa37ec"),
    "G1": Row(512, 512, 46662, (43, 21, 0), 0, "adecf70092d1"),
    "G2": Row(512, 512, 15808, (42, 22, 0), 0, "856fac893371"),
    "G4": Row(512, 512, 136278, (27, 8, 29), 0, "7170f04eb33b"),
    "G5": Row(512, 512, 44953, (44, 16, 4), 0, "648906c02997"),
    "G6": Row(256, 300, 35600, (7, 10, 3), 0, "676c8b74e371"),
    "G7": Row(512, 512, 17920, (40, 24, 0), 0, "231009de1e89"),
    "G9": Row(256, 256, 6400, (0, 16, 0), 0, "d07185c99105"),
    "G10": Row(532, 532, 119184, (32, 16, 33), 0, "f518ef449d95"),
    "G11a": Row(512, 512, 126352, (20, 34, 10), 0, "81b31f2defe8"),
    "G14a": Row(64, 256, 12616, (0, 1, 3), 0, "96845c74942e"),
    "G15": Row(512, 512, 98304, (40, 0, 24), 0, "1849654e74d2"),
    "O2": Row(512, 512, 52722, (38, 26, 0), 0, "ad0a3e1f508f"),
    "O3": Row(512, 512, 4452, (31, 33, 0), 0, "e96aad67ca54"),
}
"""G5 is F4 in another form, so it has the same numbers."""

_LENGTHS = (200, 137, 175)
_PLACES = np.arange(512, dtype=np.int64)


def inputs(name: str) -> Arrays:
    """The inputs of a row's program, without a batch axis."""
    return _INPUTS[name]() if name in _INPUTS else {}


def _documents() -> Arrays:
    return {"doc": np.repeat(np.arange(3), _LENGTHS)}


def _starts() -> Arrays:
    starts = np.cumsum((0, *_LENGTHS[:-1]))
    return {"start": np.repeat(starts, _LENGTHS)}


def _images() -> Arrays:
    return {"lo": np.array([0, 20, 120]), "hi": np.array([120, 120, 256])}


def _tree() -> Arrays:
    """Node `t` descends from `(t - 1) // 2`, and is its own ancestor."""
    ancestor = np.eye(64, dtype=np.bool_)
    for node in range(1, 64):
        ancestor[node] |= ancestor[(node - 1) // 2]
    return {"ancestor": ancestor}


def _chosen() -> Arrays:
    """The best 3 of 8 key tiles by (7 q + 13 k) % 17; the own tile replaces the last."""
    tiles = np.arange(8)
    scores = (7 * tiles[:, None] + 13 * tiles) % 17
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    without = ~(best == tiles[:, None]).any(axis=1)
    best[without, 2] = tiles[without]
    return {"chosen": best}


def _vertical_slash() -> Arrays:
    vertical = np.isin(_PLACES, [0, 5, 77, 300])
    slash = np.isin(_PLACES, [0, 1, 2, 64, 65, 130])
    return {"vertical": vertical, "slash": slash}


_INPUTS: dict[str, Callable[[], Arrays]] = {
    "A4": lambda: {"bias": 5 * _PLACES % 512},
    "A5": lambda: {"win": 7 * _PLACES % 64},
    "F4": _documents,
    "F5": _documents,
    "F8": _documents,
    "F11": _documents,
    "G5": _starts,
    "G6": _images,
    "G14a": _tree,
    "G15": _chosen,
    "O3": _vertical_slash,
}
