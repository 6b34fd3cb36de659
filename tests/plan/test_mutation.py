"""Faults put into a schedule are seen: the tests above can fail.

Each mutant changes one thing, as a slip in the compiler would; the comparison of the
rebuilt mask with the evaluator must find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import FULL_PATTERN, Binary, Const, IntExpr, IntOp
from patternc.plan.expand import live_tiles, plan_mask
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileCover, TileKind
from tests.programs import DUO, PHI3_SMALL, compiled, one_head

PROGRAMS = {
    "phi3_small": PHI3_SMALL,
    "duo": DUO,
    "a_shape": one_head("streaming(70, 200)"),
    "window": one_head("window(100)"),
    "band": one_head("band(70)"),
    "dilated": one_head("dilated(200, 4)"),
}
SIZES = ((512, 512, None), (200, 1000, 0), (1000, 200, None), (1000, 1000, 37))


def in_plain_order(kernel: Kernel) -> Kernel:
    """The ranges are of plain tiles: a square call must not list tiles of an order."""
    covers = tuple(replace(cover, order=()) for cover in kernel.covers)
    return replace(kernel, covers=covers)


def visits_an_empty_tile(mutant: Kernel, original: Kernel, head: int) -> bool:
    """Whether a tile is visited in which nothing is visible: wasted work."""
    block_q, block_k = mutant.schedule.block_q, mutant.schedule.block_k
    cover = mutant.cover_of(head)
    tiles = live_tiles(cover, mutant.schedule, head, 512, 512, 0, {})
    seen = dense_mask(original.cover_of(head).mask, head, 512, 512, 0)
    blocks = seen.reshape(512 // block_q, block_q, 512 // block_k, block_k)
    live = np.asarray(blocks.any(axis=(1, 3)))
    return not live[tiles.qt, tiles.kt].all()


def differs(mutant: Kernel, original: Kernel) -> bool:
    """Whether the comparison with the evaluator rejects a schedule."""
    heads = range(original.attention.heads)
    if any(visits_an_empty_tile(mutant, original, head) for head in heads):
        return True
    for n_q, n_k, offset in SIZES:
        for head in range(original.attention.heads):
            expected = dense_mask(original.cover_of(head).mask, head, n_q, n_k, offset)
            try:
                found = plan_mask(mutant, head, n_q, n_k, offset)
            except (ValueError, IndexError):  # a tile twice, or out of range
                return True
            if not np.array_equal(found, expected):
                return True
    return False


def shifted(expr: IntExpr, by: int) -> IntExpr:
    return Binary(IntOp.ADD, expr, Const(by))


def with_range(kernel: Kernel, cover: TileCover, at: int, new: KeyRange) -> Kernel:
    parts = list(cover.ranges or ())
    parts[at] = new
    changed = replace(cover, ranges=tuple(parts))
    covers = tuple(changed if item is cover else item for item in kernel.covers)
    return replace(kernel, covers=covers)


def mutants(kernel: Kernel) -> Iterator[tuple[str, Kernel]]:
    """Every single fault: bounds off by one, a lost range, a lost mask, heads."""
    for cover in kernel.covers:
        ranges = cover.ranges or ()
        for at, part in enumerate(ranges):
            where = f"range {at} of heads {cover.heads[:2]}"
            for name, new in (
                ("lo + 1", replace(part, lo=shifted(part.lo, 1))),
                ("hi - 1", replace(part, hi=shifted(part.hi, -1))),
                ("hi + 1", replace(part, hi=shifted(part.hi, 1))),
            ):
                yield f"{name}, {where}", with_range(kernel, cover, at, new)
            rest = replace(cover, ranges=ranges[:at] + ranges[at + 1 :])
            covers = tuple(rest if item is cover else item for item in kernel.covers)
            yield f"lost {where}", replace(kernel, covers=covers)
            if part.kind is TileKind.PARTIAL:
                unmasked = replace(part, kind=TileKind.FULL, residual=FULL_PATTERN)
                yield f"unmasked {where}", with_range(kernel, cover, at, unmasked)
    if len(kernel.covers) == 2:
        first, second = kernel.covers
        a, b = first.heads[-1], second.heads[0]
        swapped = (
            replace(first, heads=(*first.heads[:-1], b)),
            replace(second, heads=(*second.heads[1:], a)),
        )
        yield "two heads swapped", replace(kernel, covers=swapped)


def cases() -> Iterator[tuple[str, Kernel, Kernel]]:
    for program, text in PROGRAMS.items():
        kernel = in_plain_order(compiled(text, Schedule(64, 64)))
        for fault, mutant in mutants(kernel):
            yield f"{program}: {fault}", mutant, kernel


CASES = list(cases())


def test_originals_pass() -> None:
    for text in PROGRAMS.values():
        kernel = compiled(text, Schedule(64, 64))
        assert not differs(kernel, kernel)


@pytest.mark.parametrize(
    ("mutant", "original"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_mutants_are_killed(mutant: Kernel, original: Kernel) -> None:
    assert differs(mutant, original)


def test_there_are_mutants_of_every_kind() -> None:
    kinds = {name.split(": ")[1].split(",")[0].split(" range")[0] for name, *_ in CASES}
    assert kinds == {
        "lo + 1",
        "hi - 1",
        "hi + 1",
        "lost",
        "unmasked",
        "two heads swapped",
    }
