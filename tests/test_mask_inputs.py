"""`patternc mask --input`: batches, and every table that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from patternc.cli import main

PROGRAM = """
layout pair = text[8] + image[y = 3, x = 4]

attention tabled {
    heads 4 kv 2
    input doc[k] : int sorted
    input keep[h, q // 4, k // 4] : bool
    input near[b] : int
    input shift[g, 3] : int
    input slope[h] : float
    mask  doc[q] == doc[k] & keep[h, q // 4, k // 4] & q - k < near + shift[g, 1]
    score s + slope[h]
}

attention laid {
    heads 1
    layout pair
    mask  q in text | q.y == k.y
}
"""
N = 20


def tables() -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(0)
    return {
        "doc": np.sort(generator.integers(0, 3, (2, N)), axis=-1),
        "keep": generator.random((4, 5, 5)) < 0.7,
        "near": np.array([3, 12]),
        "shift": generator.integers(0, 4, (2, 3)).astype(np.int8),
    }


def arguments(folder: Path, given: dict[str, NDArray[Any]]) -> list[str]:
    """`patternc mask` for head 3, with each table in a file of its own."""
    (folder / "p.pat").write_text(PROGRAM)
    found = ["mask", str(folder / "p.pat"), "--entry", "tabled", "--head", "3"]
    for name, values in given.items():
        np.save(folder / f"{name}.npy", values)
        found += ["--input", f"{name}={folder / name}.npy"]
    return [*found, "--k-len", str(N), "--digest"]


@pytest.mark.parametrize("via", ["reference", "plan"])
@pytest.mark.parametrize("batch", [0, 1])
def test_a_batch_element(
    via: str, batch: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tables()
    asked = [*arguments(tmp_path, given), "--via", via, "--batch", str(batch)]
    assert main(asked) == 0
    q, k = np.arange(N)[:, None], np.arange(N)
    doc = given["doc"][batch]
    wanted = (doc[:, None] == doc) & given["keep"][3][q // 4, k // 4]
    wanted &= q - k < given["near"][batch] + given["shift"][1, 1]
    assert 0 < wanted.sum() < N * N
    found = json.loads(capsys.readouterr().out)
    assert found["visible"] == wanted.sum()
    assert found["empty_rows"] == (~wanted.any(1)).sum()


WRONG: dict[str, tuple[str, NDArray[Any] | None, str]] = {
    "missing": ("doc", None, "needs --input doc"),
    "short": ("doc", np.zeros(N - 1, np.int64), "shape [20], got [19]"),
    "wide": ("doc", np.zeros((2, 2, N), np.int64), "shape [20], got [2, 2, 20]"),
    "axes swapped": ("shift", np.zeros((3, 2), np.int64), "shape [2, 3], got [3, 2]"),
    "a scalar per batch": ("near", np.zeros((2, 1), np.int64), "shape [B]"),
    "float": ("doc", np.zeros(N), "values of int, got float64"),
    "bool as int": ("doc", np.zeros(N, np.bool_), "values of int, got bool"),
    "int as bool": ("keep", np.zeros((4, 5, 5), np.int8), "values of bool, got int8"),
    "falling": ("doc", np.arange(N)[::-1], "sorted"),
    "large": ("shift", np.full((2, 3), 2**31), "32 bits, got 2147483648"),
    "negative": ("shift", np.full((2, 3), -(2**31) - 1), "got -2147483649"),
    "unknown": ("docs", np.zeros(N, np.int64), "has no input docs"),
    "float input": ("slope", np.zeros(3), "shape [4], got [3]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_does_not_fit_is_bad_usage(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, values, words = WRONG[name]
    given = tables()
    given.pop(table, None)
    if values is not None:
        given[table] = values
    with pytest.raises(SystemExit) as exit_:
        main(arguments(tmp_path, given))
    assert exit_.value.code == 2
    assert words in capsys.readouterr().err


def test_a_batch_element_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments(tmp_path, tables()), "--batch", "2"])
    assert "2 batch elements" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["objects", "archive", "text", "empty"])
def test_nothing_in_a_file_is_executed(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npy"
    if kind == "objects":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "archive":
        with path.open("wb") as stream:
            np.savez(stream, doc=np.zeros(3))
    else:
        path.write_bytes(b"doc = 1\n" if kind == "text" else b"")
    given = {name: table for name, table in tables().items() if name != "doc"}
    with pytest.raises(SystemExit) as exit_:
        main([*arguments(tmp_path, given), "--input", f"doc={path}"])
    assert exit_.value.code == 2
    assert "--input doc=" in capsys.readouterr().err


def test_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {name: table for name, table in tables().items() if name != "doc"}
    path = tmp_path / "none.npy"
    assert main([*arguments(tmp_path, given), "--input", f"doc={path}"]) == 1
    assert "none.npy" in capsys.readouterr().err


def test_a_layout_fixes_the_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments(tmp_path, {})
    laid = ["mask", str(tmp_path / "p.pat"), "--entry", "laid", "--digest"]
    assert main(laid) == 0
    assert json.loads(capsys.readouterr().out)["visible"] == 8 * 20 + 3 * 4 * 4
    for sizes in (["--k-len", "21"], ["--q-len", "3", "--q-offset", "0"]):
        with pytest.raises(SystemExit):
            main([*laid, *sizes])
        assert "pair has 20 tokens" in capsys.readouterr().err
