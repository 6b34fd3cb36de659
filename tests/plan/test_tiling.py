"""The closed form: what is derived for known patterns, and that it is always exact."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given

from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import LENGTH, Attention, BoolExpr, HeadCase
from patternc.ir.text import print_expr
from patternc.ir.walk import subexpressions
from patternc.passes import run
from patternc.plan.expand import live_tiles, plan_mask
from patternc.plan.kernel import Kernel, Schedule, TileKind
from patternc.plan.tiling import plan
from tests.programs import DUO, EXAMPLES, PHI3_SMALL, compiled, one_head
from tests.strategies import PARAM, Size, attentions, masks, schedules, sizes

LENGTHS = (1, 63, 64, 65, 200, 512, 1000)


def ranges_text(kernel: Kernel) -> list[str]:
    """Every range of every cover in one line."""
    return [
        f"{part.kind.value} [{print_expr(part.lo)}, {print_expr(part.hi)}) "
        f"step {part.step} if {print_expr(part.guard)}: {print_expr(part.residual)}"
        for cover in kernel.covers
        for part in cover.ranges or ()
    ]


def test_causal_is_two_ranges() -> None:
    kernel = compiled(one_head("causal"), Schedule(128, 64))
    assert ranges_text(kernel) == [
        "partial [max(0, 2 * qt), 2 * qt + 2) step 1 if full: k <= q",
        "full [0, 2 * qt) step 1 if full: full",
    ]


def test_a_partial_range_tests_only_what_it_does_not_imply() -> None:
    kernel = compiled(one_head("window(1024)"), Schedule(128, 64))
    assert ranges_text(kernel) == [
        "partial [max(0, 2 * qt - 16), 2 * qt - 14) step 1 if full: q - k < 1024",
        "partial [max(0, 2 * qt), 2 * qt + 2) step 1 if full: 0 <= q - k",
        "full [max(0, 2 * qt - 14), 2 * qt) step 1 if full: full",
    ]


def test_a_congruence_is_a_stride_symbolic_in_the_head() -> None:
    kernel = compiled(PHI3_SMALL, Schedule(64, 64))
    assert len(kernel.covers) == 1  # 32 heads, one loop nest
    assert "full [7 - h % 8, qt - 15) step 8 if full: full" in ranges_text(kernel)


def test_a_runtime_parameter_stays_a_symbol() -> None:
    text = one_head("window(w)", params="(w: runtime = 300)")
    kernel = compiled(text, Schedule(64, 64))
    assert any("w" in line for line in ranges_text(kernel))
    for width in (0, 1, 64, 65, 300, 10_000):
        mask = plan_mask(kernel, 0, 200, 300, None, {"w": width})
        seen = dense_mask(kernel.covers[0].mask, 0, 200, 300, None, {"w": width})
        assert np.array_equal(mask, seen)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("block", [(64, 64), (128, 64), (128, 128)])
def test_examples_are_exact(name: str, block: tuple[int, int]) -> None:
    kernel = compiled(EXAMPLES[name], Schedule(*block))
    assert all(cover.ranges is not None for cover in kernel.covers)
    for n_q in LENGTHS:
        for n_k in LENGTHS:
            for offset, head in ((None, 0), (0, 5), (17, 12), (-70, 31), (640, 24)):
                mask = kernel.cover_of(head).mask
                expected = dense_mask(mask, head, n_q, n_k, offset)
                assert np.array_equal(
                    plan_mask(kernel, head, n_q, n_k, offset), expected
                ), (n_q, n_k, offset, head)


@given(attentions(affine=False, runtime=True), schedules, sizes)
def test_the_plan_is_the_mask(
    attention: Attention, schedule: Schedule, size: Size
) -> None:
    kernel = plan(run(attention)[-1][1], schedule)
    values = {PARAM: attention.params[0].default or 0}
    for head in range(attention.heads):
        original = attention.case_of(head).mask
        sizes_of = (size.n_q, size.n_k, size.q_offset)
        expected = dense_mask(original, head, *sizes_of, values)
        assert np.array_equal(plan_mask(kernel, head, *sizes_of, values), expected)


@given(masks(affine=False), schedules)
def test_a_tile_is_what_it_is_called_at_every_point(
    mask: BoolExpr, schedule: Schedule
) -> None:
    """FULL, PARTIAL and EMPTY against the evaluator, on whole tiles."""
    attention = Attention("it", 2, 1, (), (HeadCase((0, 1), mask),))
    cover = plan(run(attention)[-1][1], schedule).covers[0]
    n_q, n_k = 3 * schedule.block_q, 3 * schedule.block_k
    for head in (0, 1):
        tiles = live_tiles(cover, schedule, head, n_q, n_k, 0, {})
        seen = dense_mask(mask, head, n_q, n_k, 0)
        if tiles.tokens is not None:
            seen = seen[np.ix_(tiles.tokens, tiles.tokens)]
        blocks = seen.reshape(3, schedule.block_q, 3, schedule.block_k)
        expected = np.where(
            blocks.all((1, 3)), "full", np.where(blocks.any((1, 3)), "partial", "empty")
        )
        found = np.full((3, 3), "empty", dtype="<U7")
        found[tiles.qt, tiles.kt] = np.where(tiles.partial, "partial", "full")
        assert np.array_equal(found, expected)
        assert len({*zip(tiles.qt.tolist(), tiles.kt.tolist(), strict=True)}) == len(
            tiles.qt
        )


def test_no_closed_form_says_why() -> None:
    kernel = compiled(one_head("q * k < 1000"))
    assert kernel.covers[0].ranges is None
    assert kernel.covers[0].reason == "a product of two symbols is not affine"


def test_a_full_range_runs_to_the_last_key() -> None:
    kernel = compiled(one_head("full"), Schedule(64, 64))
    (part,) = kernel.covers[0].ranges or ()
    assert part.kind is TileKind.FULL
    assert plan_mask(kernel, 0, 100, 300).all()


def test_the_length_is_a_symbol_too() -> None:
    kernel = compiled(one_head("k >= N - 100"), Schedule(64, 64))
    cover = kernel.covers[0]
    assert cover.ranges is not None
    assert any(LENGTH in subexpressions(part.lo) for part in cover.ranges)


def test_the_schedule_is_the_same_in_every_process() -> None:
    """isl and our own sorting must not depend on addresses or hash seeds."""
    program = (
        "from tests.plan.test_tiling import ranges_text\n"
        "from tests.programs import DUO, PHI3_SMALL, compiled\n"
        "print(ranges_text(compiled(DUO)) + ranges_text(compiled(PHI3_SMALL)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert str(ranges_text(compiled(DUO)))[:-1] in outputs.pop()
