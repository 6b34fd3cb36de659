"""Verification of programs with data: seeded inputs, the sizes that fit, found mistakes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from patternc import backends, driver
from patternc.backends.protocol import LoadedAttention
from patternc.backends.reference import ReferenceBackend
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import Attention
from patternc.plan.expand import LiveTiles, live_tiles
from patternc.plan.kernel import Kernel, Schedule
from patternc.samples import CallSize, sample, sizes_for
from patternc.syntax.load import read_source
from patternc.verify import DTYPES, Quantity, Result, verify

TEXT = """
layout grid = text[10] + image[y = 9, x = 10] + tail[20, valid = length]

attention packed {
    heads 4 kv 2
    input doc[k] : int sorted
    input label[k] : int
    mask  doc[q] == doc[k] & (causal | label[k] % 2 == 0)
}

attention blocks {
    heads 2
    input keep[h, q // 16, k // 16] : bool
    input prefix[b] : int
    mask  causal & (keep[h, q // 16, k // 16] | k < prefix)
}

attention near {
    heads 2
    layout grid
    input length[b] : int
    input label[k] : int
    mask  q in text | k in text | (abs(q.y - k.y) <= 1 & abs(q.x - k.x) <= 1)
    order image by tile(y = 4, x = 4)  for h in {0}
    order all by labels(label)         for h in {1}
}

attention biased {
    heads 4
    input slope[h] : float
    input pair[16, h] : float
    mask  causal
    score softcap(s, 5.0) + slope[h] * (k - q) + pair[q - k, h]
    sink  slope[h]
}

attention changed {
    heads 3
    input gate[q, h] : float
    mask    causal
    weights sigmoid(-1.0)      for h in {1}
    output  gate[q, h] * o + v for h in {0, 1}
}
"""
ENTRIES = ("packed", "blocks", "near", "biased", "changed")
SIZES = ((1, 1), (53, 103), (103, 53), (70, 70))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    file: Path = tmp_path_factory.mktemp("programs") / "data.pat"
    file.write_text(TEXT)
    source, small = read_source(file), Schedule(16, 16)
    return {entry: driver.compile_source(source, entry, {}, small) for entry in ENTRIES}


def results(
    kernel: Kernel, *names: str, dtypes: tuple[torch.dtype, ...] = (torch.float32,)
) -> list[Result]:
    return verify(kernel, names, dtypes=dtypes, sizes=SIZES, head_dim=16)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_backends_without_a_gpu_pass(
    kernels: dict[str, Kernel], entry: str
) -> None:
    found = results(kernels[entry], "reference", "tiled", dtypes=DTYPES)
    assert all(result.ok for result in found)
    quantities = {result.quantity for result in found}
    assert quantities == (
        {Quantity.OUTPUT} if entry == "changed" else {Quantity.OUTPUT, Quantity.LSE}
    )
    sizes = {(result.n_q, result.n_k) for result in found}
    expected = {
        "near": {(1, 120), (53, 120), (103, 120), (70, 120), (120, 120)},
        "changed": {(1, 1), (53, 103), (70, 70)},
    }
    assert sizes == expected.get(entry, set(SIZES))


def test_a_layout_too_long_for_a_dense_square_keeps_some_rows(
    kernels: dict[str, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = kernels["near"].attention
    assert sizes_for(attention, ((5, 9),)) == [(5, 120), (120, 120)]
    monkeypatch.setattr("patternc.samples.MOST_PAIRS", 2 * 120 * 120 - 1)
    assert sizes_for(attention, ((5, 9), (5, 8), (500, 2))) == [(5, 120), (120, 120)]
    assert sizes_for(attention, ((5, 9),)) == [(5, 120)]


def test_an_offset_that_puts_a_query_past_its_own_value_is_left_out(
    kernels: dict[str, Kernel],
) -> None:
    attention = kernels["changed"].attention
    assert sizes_for(attention, ((4, 9), (7, 9)), 3) == [(4, 9)]


def test_inputs_are_seeded_and_of_use(kernels: dict[str, Kernel]) -> None:
    size = CallSize(2, 100, 200, 100, 16)

    def drawn(attention: Attention, seed: int) -> dict[str, torch.Tensor]:
        found = sample(attention, size, torch.float32, "cpu", {}, seed)
        return dict(found.inputs)

    packed = drawn(kernels["packed"].attention, 0)
    assert all(
        torch.equal(value, packed[name])
        for name, value in drawn(kernels["packed"].attention, 0).items()
    )
    assert not torch.equal(
        packed["label"], drawn(kernels["packed"].attention, 1)["label"]
    )
    doc = packed["doc"]
    assert doc.shape == (2, 200)
    assert (doc.diff(dim=-1) >= 0).all()
    assert 1 < len(set(doc[0].tolist())) < 20
    assert not torch.equal(doc[0], doc[1])
    assert packed["label"].shape == (1, 200)
    blocks = drawn(kernels["blocks"].attention, 0)
    assert blocks["keep"].shape == (2, 2, 13, 13)
    assert 0.2 < blocks["keep"].double().mean() < 0.4
    assert blocks["prefix"].shape == (2,)
    gate = drawn(kernels["changed"].attention, 0)["gate"]
    assert gate.shape == (2, 200, 3)
    assert gate.abs().max() <= 0.5


# --- mistakes -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Without:
    """The reference of an attention that lacks some of its clauses."""

    name: ClassVar[str] = "without"
    clause: str

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        return None

    def load(self, kernel: Kernel) -> LoadedAttention:
        changes = {self.clause: ()}
        attention = replace(kernel.attention, **changes)  # type: ignore[arg-type]
        return ReferenceBackend().load(replace(kernel, attention=attention))


@pytest.mark.parametrize(
    ("entry", "clause", "heads"),
    [
        ("biased", "scores", {0, 1, 2, 3}),
        ("biased", "sinks", {0, 1, 2, 3}),
        ("changed", "weights", {1}),
        ("changed", "outputs", {0, 1}),
    ],
)
def test_a_clause_that_a_backend_forgets_is_found(
    kernels: dict[str, Kernel],
    monkeypatch: pytest.MonkeyPatch,
    entry: str,
    clause: str,
    heads: set[int],
) -> None:
    monkeypatch.setattr(backends, "get", lambda name: Without(clause))
    found = results(kernels[entry], "without")
    outputs = [
        result
        for result in found
        if result.quantity is Quantity.OUTPUT and result.n_q > 1
    ]
    assert not any(result.ok for result in outputs)
    assert {result.head for result in outputs} <= heads


@pytest.mark.parametrize("entry", ["packed", "blocks", "near"])
def test_a_tile_that_is_not_visited_is_found(
    kernels: dict[str, Kernel], monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    def short(*arguments: Any) -> LiveTiles:
        tiles = live_tiles(*arguments)
        return replace(
            tiles,
            qt=tiles.qt[:-1],
            kt=tiles.kt[:-1],
            partial=tiles.partial[:-1],
            part=tiles.part[:-1],
        )

    monkeypatch.setattr("patternc.backends.chunks.live_tiles", short)
    assert not all(result.ok for result in results(kernels[entry], "tiled"))
