"""Block fusion: few loops over key tiles that together visit every live tile once.

In: the visible pairs of a mask, a union of convex pieces; then the loops that were
read off. Out: disjoint pieces of whole tiles, FULL or PARTIAL; then fewer loops. Not
its job: deriving the pairs (`analysis.sets`), reading loops off a piece
(`analysis.loops`).

Terms of a union that overlap, lie side by side or share tiles become one piece, and
pattern blocks that are smaller than a tile become PARTIAL tiles: the union is taken
before it is cut into tiles, and the tiles are coalesced before they are cut apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import islpy as isl

from patternc.analysis.loops import disjoint
from patternc.analysis.sets import SetBuilder, tile_relation
from patternc.ir.nodes import FULL_PATTERN, Any, BoolExpr, IntExpr
from patternc.plan.kernel import KeyRange, TileKind


@dataclass(frozen=True)
class FusedTiles:
    """Disjoint convex pieces `[qt, kt]` of live tiles, each with its kind.

    `terms` counts the convex pieces of the mask itself: the loops that there would be
    if each had its own.
    """

    pieces: tuple[tuple[TileKind, isl.Set], ...]
    terms: int


def fuse_tiles(visible: isl.Set, domain: isl.Set, to_tiles: isl.Map) -> FusedTiles:
    """The live tiles of `visible`, a set of pairs `[q, k]` in `domain`."""
    tiles = tile_relation(visible, domain, to_tiles)
    pieces = [(TileKind.PARTIAL, piece) for piece in disjoint(tiles.partial)]
    pieces += [(TileKind.FULL, piece) for piece in disjoint(tiles.full)]
    return FusedTiles(tuple(pieces), visible.n_basic_set())


def fuse_ranges(
    ranges: Sequence[KeyRange], rows: SetBuilder, known: isl.Set
) -> tuple[KeyRange, ...]:
    """The same tiles in fewer ranges, in the order of the first of each.

    Ranges that differ only in their guards are one: they are disjoint, so at most one
    of the guards holds where there is a tile. A guard that always holds goes. `rows`
    makes sets of the guards, `known` is what holds of `qt` and all symbols.
    """
    groups: dict[tuple[TileKind, IntExpr, IntExpr, int, BoolExpr], list[KeyRange]] = {}
    for part in ranges:
        key = (part.kind, part.lo, part.hi, part.step, part.residual)
        groups.setdefault(key, []).append(part)
    fused = []
    for same in groups.values():
        guard = same[0].guard
        if len(same) > 1:
            guard = Any(tuple(part.guard for part in same))
            if known.is_subset(rows.set_of(guard).params()):
                guard = FULL_PATTERN
        fused.append(replace(same[0], guard=guard))
    return tuple(fused)
