"""Every conformance mask, bit for bit: by meaning and by schedule; and what backends
make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from patternc import driver
from patternc.backends.reference import ReferenceBackend
from patternc.backends.tiled import TiledBackend
from patternc.backends.triton.load import TritonBackend
from patternc.cli import main
from patternc.plan.kernel import Schedule
from patternc.store import Store
from patternc.syntax.load import read_source
from tests.conformance.rows import ROWS, inputs

FOLDER = Path(__file__).parent
HEAD_DIM = 64
LARGE = Schedule(block_q=128, block_k=128)
"""Few tiles: in the interpreter, time goes by tiles."""


def test_every_row_has_a_program() -> None:
    assert {path.stem for path in FOLDER.glob("*.pat")} == set(ROWS)


def test_the_chosen_tiles_are_those_that_were_published() -> None:
    published = "510 271 402 623 340 516 736 407"
    chosen = inputs("G15")["chosen"].tolist()
    assert [list(map(int, row)) for row in published.split()] == chosen


@pytest.mark.parametrize("via", ["reference", "plan"])
@pytest.mark.parametrize("name", ROWS)
def test_numbers(
    name: str, via: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ROWS[name]
    arguments = ["mask", str(FOLDER / f"{name}.pat"), "--digest", "--via", via]
    arguments += ["--q-len", str(row.n_q), "--k-len", str(row.n_k)]
    arguments += ["--q-offset", str(row.q_offset)]
    for table, values in inputs(name).items():
        path = tmp_path / f"{table}.npy"
        np.save(path, values)
        arguments += ["--input", f"{table}={path}"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    tiles = found["tiles"]
    assert found["visible"] == row.visible
    assert (tiles["empty"], tiles["partial"], tiles["full"]) == row.tiles
    assert found["empty_rows"] == row.empty_rows
    assert found["sha256"] == row.sha256


@pytest.mark.parametrize("backend", ["tiled", "triton"])
@pytest.mark.parametrize("name", ROWS)
def test_a_backend_equals_the_reference(
    name: str, backend: str, tmp_path: Path
) -> None:
    row = ROWS[name]
    source = read_source(FOLDER / f"{name}.pat")
    kernel = driver.compile_source(source, None, None, LARGE)
    other = TritonBackend(Store(tmp_path)) if backend == "triton" else TiledBackend()
    refusal = other.refuse(kernel)
    if refusal is not None:
        pytest.skip(f"{refusal.code}: {refusal.message}")
    generator = torch.Generator().manual_seed(len(name) + row.visible)
    q = torch.randn((1, 1, row.n_q, HEAD_DIM), generator=generator)
    k, v = torch.randn((2, 1, 1, row.n_k, HEAD_DIM), generator=generator)
    tables = {
        table: torch.from_numpy(values)[None] for table, values in inputs(name).items()
    }
    results = [
        loaded(
            q,
            k,
            v,
            scale=HEAD_DIM**-0.5,
            q_offset=row.q_offset,
            params={},
            return_lse=True,
            inputs=tables,
        )
        for loaded in (ReferenceBackend().load(kernel), other.load(kernel))
    ]
    (wanted, wanted_lse), (output, lse) = results
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, wanted_lse, atol=1e-5, rtol=1e-5)
