"""What is timed, and that one system's failure is a note: without a device or a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from patternc.bench import measure as measuring
from patternc.bench.measure import measure
from patternc.bench.peers import Site
from patternc.bench.record import (
    BACKWARD,
    CUDNN,
    FA3,
    FLASH,
    FLEX,
    FORWARD,
    OURS,
    Shape,
)
from patternc.bench.suite import Row, Sizes, row_named

CPU = torch.device("cpu")
SHAPE = Shape(1, 2, 2, 256, 64, "float32")


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs each call once more and says 2 ms."""

    def bench(call: Callable[[], object], **_options: object) -> float:
        call()
        return 2.0

    monkeypatch.setattr(measuring, "do_bench", bench)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_a_forward_row() -> None:
    row = row_named("window_1024")
    found = measure(
        "forward", row, SHAPE, systems=(OURS, FLEX, FLASH), device=CPU, shrink=64
    )
    assert (found.ms(OURS), found.ms(FLEX), found.ms(FLASH)) == (2.0, 2.0, None)
    flex, flash = found.of(FLEX), found.of(FLASH)
    assert flex is not None
    assert flash is not None
    assert flex.distance is not None
    assert flex.distance < 1e-5
    assert flash.note == "would need an n_q x n_k mask"
    assert found.ratio(FLEX) == 1.0
    # A window of 16 keys, of which the first queries lack some.
    assert found.density == (256 * 16 - 15 * 16 / 2) / 256**2
    assert found.density <= found.tile_density < 1


def test_a_backward_row_times_gradients_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the tiled backend in our place: gradients of all three agree."""
    row = row_named("causal")
    of = Site.of

    def tiled(row: Row, sizes: Sizes, *more: Any) -> Site:
        return replace(of(row, sizes, *more), backend="tiled")

    monkeypatch.setattr(Site, "of", tiled)
    found = measure(
        "backward", row, SHAPE, BACKWARD, (OURS, FLEX, FLASH, CUDNN, FA3), device=CPU
    )
    flash, cudnn, fa3 = (found.of(name) for name in (FLASH, CUDNN, FA3))
    assert flash is not None
    assert flash.ms == 2.0
    assert flash.distance is not None
    assert flash.distance < 1e-5
    for absent in (cudnn, fa3):  # neither runs on a CPU
        assert absent is not None
        assert absent.ms is None
        assert absent.note


def test_our_own_failure_is_a_note_and_the_peers_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_arguments: object) -> object:
        raise RuntimeError("no kernel\n today")

    monkeypatch.setattr(Site, "_ours", fails)
    found = measure(
        "forward", row_named("dense"), SHAPE, FORWARD, (OURS, FLASH), device=CPU
    )
    ours, flash = found.timings
    assert (ours.ms, ours.note) == (None, "RuntimeError: no kernel today")
    assert (flash.ms, flash.distance) == (2.0, None)
    assert found.rate(1.0) is None
    assert found.ratio(FLASH) is None


def test_the_tile_is_that_of_the_kernel_that_ran() -> None:
    shape = Shape(1, 2, 2, 4096, 128, "bfloat16")
    site = Site.of(row_named("causal"), measuring.sizes_of(shape), CPU)
    own = site.trace().kernel
    assert measuring.that_ran(own, ["forward_kernel"]) is own
    other = measuring.that_ran(own, ["hopper_kernel", "forward_kernel"])
    tiles = [(x.schedule.block_q, x.schedule.block_k) for x in (own, other)]
    assert tiles[1] == (128, 128) != tiles[0]
    densities = [measuring.tile_density(site, kernel) for kernel in (own, other)]
    assert densities[0] < densities[1] == 528 / 1024
