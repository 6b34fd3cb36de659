"""What choosing keys takes, and a dense call, from counts of their work.

Made by `python -m patternc.backends.triton.host` from the templates of generated
modules. Do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

CLEARLY = 0.8
"""The share of the dense time below which choosing is taken to be faster. The model may
be a quarter off, and still no call is slower than a dense one."""

SHORT = 16384
"""Up to so many keys a call chooses only if that pays though chosen keys lie apart."""

ASSUMED_SHARE = 0.25
"""Of its keys that a selection keeps whose number only data decides."""

COLUMNS, BY_COLUMNS = 128, 0.8
"""The columns that times are of, and the part of a pair's time that grows with them:
from the full tiles of 64 and 128 columns in `plan.measured`."""

TILE = 64
"""Keys and diagonals that lie apart fill tiles of this size."""

ROWS, KEYS, SAMPLES = 48, 256, 4096
"""Where a mask is sampled: pairs of some rows and keys, or some of all pairs."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """What choosing keys and attending to them takes on one family of devices.

    Times are those of the whole device, for rows of 128 columns and 16 bits.
    `launches_ms`: what a plan takes whatever its sizes. In picoseconds: `dense_ps` for a
    visible pair of the dense kernel, `scored_ps` for an entry of an estimate, a product
    of two rows, `ranked_ps` for an entry that is ranked in one of many scopes, and
    `alone_ps` where a head has a single one; `line_ps` for a visible pair where diagonals
    and columns are chosen in clusters, `block_ps` where blocks are, and `tile_ps` for any
    pair of a tile that is visited because of single pairs in it.
    """

    family: str
    launches_ms: float
    dense_ps: float
    scored_ps: float
    ranked_ps: float
    alone_ps: float
    line_ps: float
    block_ps: float
    tile_ps: float
    device: str


@dataclass(frozen=True, slots=True)
class Work:
    """What choosing has to do, counted over all heads of one batch element.

    Entries of estimates, those that are ranked in many scopes and those in one for each
    head; visible pairs among chosen diagonals and columns, and among chosen blocks;
    pairs of tiles that are visited for single pairs in them, where tiles are listed, and
    as many as lines would need if they lie apart; visible pairs of the dense masks.
    """

    scored: float
    ranked: float
    alone: float
    lines: float
    blocks: float
    tiles: float
    apart: float
    dense: float

    def milliseconds(
        self, times: Choosing, is_short: bool, head_dim: int = COLUMNS
    ) -> tuple[float, float, float]:
        """The plan, attention, and a dense call, of rows of `head_dim` numbers."""
        width = 1.0 + BY_COLUMNS * (head_dim / COLUMNS - 1.0)
        planned = width * times.scored_ps * self.scored
        planned += times.ranked_ps * self.ranked + times.alone_ps * self.alone
        lines = times.line_ps * self.lines
        if is_short:
            lines = max(lines, times.tile_ps * self.apart)
        attended = lines + times.block_ps * self.blocks + times.tile_ps * self.tiles
        return (
            times.launches_ms + 1e-9 * planned,
            1e-9 * width * attended,
            1e-9 * width * times.dense_ps * self.dense,
        )


@dataclass(frozen=True, slots=True)
class CaseShare:
    """The visible share of all pairs of some heads, of chosen keys and with tiles that
    they reach if they lie apart; `kind` is "lines", "blocks" or "tiles".
    """

    kind: str
    heads: int
    seen: float
    apart: float


def counted(
    cases: Sequence[CaseShare],
    heads: int,
    pairs: float,
    dense: float,
    estimate: tuple[float, float, float],
) -> Work:
    """The work of a call of so many `heads`, and `pairs` for each.

    `dense` is the visible share of all heads' pairs if nothing is chosen, and `estimate`
    the entries of estimates, those in many scopes and those in one, of all heads.
    """
    found = dict.fromkeys(("lines", "blocks", "tiles", "apart"), 0.0)
    for case in cases:
        own = case.apart if case.kind == "tiles" else case.seen
        found[case.kind] += case.heads * pairs * own
        if case.kind == "lines":
            found["apart"] += case.heads * pairs * case.apart
    return Work(*estimate, dense=pairs * heads * dense, **found)


def is_dense_cheaper(estimate: float, chosen: float, dense: float) -> bool:
    """Whether choosing does not clearly pay, from milliseconds."""
    return estimate + chosen >= CLEARLY * dense


def scope_of(sizes: Sequence[int], n_k: int) -> int:
    """The entries of a scope whose keys have so many values.

    No more are there than keys: of the diagonals q - k half lie in the future.
    """
    return prod(min(max(size, 1), max(n_k, 1)) for size in sizes)


def chosen_share(
    scope: int, amount: float | None, least: float | None, most: float | None
) -> float:
    """Of the entries of a scope, how many are chosen; what only data decide is None."""
    share = ASSUMED_SHARE if amount is None else amount / scope
    if least is not None:
        share = max(share, least / scope)
    if most is not None:
        share = min(share, most / scope)
    return min(share, 1.0)


def reached_share(share: float, is_by_token: bool) -> float:
    """Of the tiles along a key, those with a chosen value if these lie apart."""
    return 1.0 - (1.0 - share) ** TILE if is_by_token else share
