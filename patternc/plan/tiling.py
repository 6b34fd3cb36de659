"""From a mask to its live tiles in closed form.

In: an attention after the passes, and a schedule. Out: a `Kernel`, each head group
with disjoint key ranges, symbolic in the query tile, the head, the length and the
run-time parameters. Not its job: numbers (`plan.expand`), tiles that have no closed
form (`plan.quadtree`).

The tiles are derived on the unbounded domain (any q, k >= 0): with the length inside,
the ragged last tile would split every piece in two. Each disjoint piece becomes a loop of its own, so that
a congruence is a stride and not an `if`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

import islpy as isl

from patternc.analysis.loops import Loop, NoLoop, row_loops
from patternc.analysis.residual import residual_in
from patternc.analysis.sets import (
    NotAffine,
    SetBuilder,
    TooHard,
    bounded_context,
    parameter_names,
    params_of_set,
)
from patternc.ir.evaluate import Point, evaluate_int
from patternc.ir.nodes import (
    FULL_PATTERN,
    Attention,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    Expr,
    HeadCase,
    IntOp,
    OrderCase,
)
from patternc.ir.text import print_expr
from patternc.ir.walk import axes_of, children, params_of, subexpressions
from patternc.plan.fuse import fuse_ranges, fuse_tiles
from patternc.plan.kernel import (
    Kernel,
    KeyRange,
    Schedule,
    Stripes,
    TileCover,
    TileKind,
)
from patternc.plan.stripes import NoStripes, find_stripes

MAX_RANGES = 12
"""More loops than this for one head group are slower than a list of tiles."""

MAX_OPERATIONS = 100_000
"""isl's steps for one head group: some 50 ms, what most published patterns need."""

MAX_DIVISIONS = 6
"""Different `//` and `%` in a mask that is still given to isl."""

MAX_COMPARED = 3
"""Of these in one comparison, if more than two stand side by side: they all meet."""


def plan(attention: Attention, schedule: Schedule) -> Kernel:
    """The tile schedule of an attention. Never fails: what has no closed form says so."""
    covers = tuple(
        replace(
            cover,
            heads=heads,
            order=order,
            layout=attention.layout,
            stripes=None if order else cover.stripes,
        )
        for case in attention.cases
        for cover in (cover_of_case(case, attention.heads, schedule),)
        for heads, order in _by_order(case, attention)
    )
    return Kernel(attention, covers, schedule)


def _by_order(
    case: HeadCase, attention: Attention
) -> list[tuple[tuple[int, ...], tuple[OrderCase, ...]]]:
    """The heads of a case that have one order together, and their order cases."""
    groups: dict[tuple[OrderCase, ...], list[int]] = {}
    for head in case.heads:
        own = tuple(order for order in attention.orders if head in order.heads)
        groups.setdefault(own, []).append(head)
    return [(tuple(heads), own) for own, heads in groups.items()]


def cover_of_case(case: HeadCase, heads: int, schedule: Schedule) -> TileCover:
    """The cover of one head group; `ranges` is None, with a reason, if none is found."""
    cover = TileCover(case.heads, case.mask, None, span=case.span)
    try:
        _check_divisions(case.mask)
        found, pieces = closed_form(case, heads, schedule)
    except (NotAffine, TooHard, NoLoop) as error:
        return replace(cover, reason=str(error), stripes=_stripes(case, schedule))
    if len(found) > MAX_RANGES:
        reason = f"the pattern falls into {len(found)} ranges"
        return replace(cover, reason=reason)
    return replace(cover, ranges=found, pieces=pieces)


def _stripes(case: HeadCase, schedule: Schedule) -> Stripes | None:
    try:
        return find_stripes(case.mask, schedule)
    except NoStripes:
        return None


def _check_divisions(mask: BoolExpr) -> None:
    """isl's own count of steps misses what many divisions that meet cost it."""
    ways = _divisions(mask)
    if len(ways) > MAX_DIVISIONS:
        raise TooHard(f"it divides in {len(ways)} ways, too many to derive it exactly")
    for node in subexpressions(mask):
        if isinstance(node, Compare):
            many, side_by_side = len(_divisions(node)), len(set(_outermost(node)))
            if many > MAX_COMPARED and side_by_side > 2:
                raise TooHard(f"a comparison of {many} divisions is too much work")


def _divisions(expr: Expr) -> set[Expr]:
    """The different `//` and `%` in an expression."""
    return {node for node in subexpressions(expr) if _divides(node)}


def _outermost(expr: Expr) -> Iterator[Expr]:
    """The `//` and `%` that stand in no other one."""
    if _divides(expr):
        yield expr
    else:
        for child in children(expr):
            yield from _outermost(child)


def _divides(expr: Expr) -> bool:
    return isinstance(expr, Binary) and expr.op in (IntOp.FLOORDIV, IntOp.MOD)


def closed_form(
    case: HeadCase,
    heads: int,
    schedule: Schedule,
    where: str = "k >= 0",
    turn: Callable[[isl.Set], isl.Set] = lambda piece: piece,
    row: str = "1 = 1",
) -> tuple[tuple[KeyRange, ...], int]:
    """The ranges, and how many there would be without fusion.

    `where` is isl's text for the pairs that can be asked for, `turn` what is done to
    each piece `[qt, kt]` before its loops over the second number are read off, `row`
    what then holds of the first: reversed ranges (`plan.reverse`) turn pieces round.
    Raises `NotAffine`, `TooHard` or `NoLoop`.
    """
    names = parameter_names(axes_of(case.mask), tuple(params_of(case.mask)))
    with bounded_context(MAX_OPERATIONS) as context:
        points = SetBuilder(context, ("q", "k"), names)
        domain = points.where(where).intersect(points.known(heads))
        visible = points.set_of(case.mask).intersect(domain)
        to_tiles = points.tile_map(schedule.block_q, schedule.block_k)
        tiles = fuse_tiles(visible, domain, to_tiles)
        rows = SetBuilder(context, (), (*names, Axis.QUERY_TILE.value))
        known = rows.known(heads).intersect(rows.where(row)).params()
        ranges: list[KeyRange] = []
        for kind, piece in tiles.pieces:
            residual: BoolExpr = FULL_PATTERN
            if kind is TileKind.PARTIAL:
                inside = domain.intersect(piece.apply(to_tiles.reverse()))
                residual = residual_in(case.mask, inside, points)
            ranges += _ranges(kind, turn(piece), known, residual, case)
        fused = fuse_ranges(ranges, rows, known)
        return tuple(sorted(fused, key=_visiting_order)), max(tiles.terms, len(ranges))


def _visiting_order(part: KeyRange) -> tuple[bool, int, str]:
    """PARTIAL ranges first, each kind in the order of the keys far from the start."""
    far = Point(dict.fromkeys(Axis, 2**20), defaultdict(lambda: 2**10))
    first = int(evaluate_int(part.lo, far))
    return part.kind is TileKind.FULL, first, print_expr(part.lo)


def _ranges(
    kind: TileKind,
    piece: isl.Set,
    known: isl.Set,
    residual: BoolExpr,
    case: HeadCase,
) -> list[KeyRange]:
    """The loops of one piece, a set of `[row, tile]`, with `qt` naming the row."""
    return [
        KeyRange(kind, loop.lo, loop.hi, loop.step, loop.guard, residual, case.span)
        for loop in _loops(piece, known)
    ]


def _loops(piece: isl.Set, known: isl.Set) -> list[Loop]:
    """The loops of a piece; blocks that repeat are split by residue until they fit.

    Four tiles out of every 32, say, are not one loop with a step, but the tiles with
    `kt % 4 == r` are, for each `r`.
    """
    for modulus in range(1, MAX_RANGES + 1):
        residues = [_residue(piece, modulus, at) for at in range(modulus)]
        try:
            return [
                loop
                for part in residues
                if not part.is_empty()
                for loop in row_loops(part, Axis.QUERY_TILE, known)
            ]
        except NoLoop as error:
            problem = error
    raise problem


def _residue(piece: isl.Set, modulus: int, residue: int) -> isl.Set:
    """The tiles of `piece` with `kt % modulus == residue`."""
    names = ", ".join(params_of_set(piece))
    text = f"[{names}] -> {{ [qt, kt] : kt mod {modulus} = {residue} }}"
    return piece.intersect(isl.Set.read_from_str(piece.get_ctx(), text))
