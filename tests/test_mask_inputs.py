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
    "not a number": ("slope", np.array([0, np.nan, 0, 0]), "finite numbers"),
    "an infinity": ("slope", np.array([0, 0, 0, -np.inf]), "finite numbers"),
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


CLAIMED = """attention claimed {
    heads 2
    input doc[k] : int
    mask  causal & doc[q] == doc[k]   for h == 0
    mask  doc[q] % 8 == doc[k]        otherwise
    assert mask within causal         for h == 0
    assert every q has k
    assert doc[q] == doc[k] within band(2)
    assert density <= 0.5 at N = 8
    assert retention <= 3             for h == 0
}
"""


def checked(folder: Path, doc: list[int], *more: str) -> int:
    path, table = folder / "claimed.pat", folder / "doc.npy"
    path.write_text(CLAIMED)
    np.save(table, np.array(doc))
    size = str(len(doc))
    options = ["--k-len", size, "--input", f"doc={table}", "--digest", "--check"]
    return main(["mask", str(path), *options, *more])


@pytest.mark.parametrize("via", ["reference", "plan"])
def test_check_looks_at_the_asserts_that_data_decides(
    via: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, [0, 0, 0, 1, 1, 2, 2, 2], "--via", via) == 0
    out, told = capsys.readouterr()
    assert json.loads(out)["visible"] == 6 + 3 + 6
    assert "asserts: 1 proved, 3 true of this call, 1 open, as no one call" in told


@pytest.mark.parametrize(
    ("doc", "failure"),
    [
        ([0, 0, 0, 0, 1, 1], ":8:5 fails for this call: head 0, q = 0, k = 3: in the"),
        ([0, 1, 2, 0, 0, 0], ":8:5 fails for this call: head 0, q = 0, k = 3: in the"),
        ([0, 0, 0], ":9:5 fails for this call: density 0.833333 of 3 x 3 pairs"),
    ],
)
def test_check_shows_where_an_assert_fails(
    doc: list[int],
    failure: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert checked(tmp_path, doc, "--head", "1") == 1
    assert failure in capsys.readouterr().err


def test_check_finds_a_row_that_the_offset_leaves_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--q-len", "2", "--q-offset", "7"]
    assert checked(tmp_path, [1, 2, 3, 4, 5, 6, 7, 8], *sizes) == 1
    assert ":7:5 fails for this call: head 0, q = 8: the row" in capsys.readouterr().err


def test_check_of_a_program_without_asserts_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*arguments(tmp_path, tables()), "--check"]
    assert main(asked) == 0
    assert "asserts: there are none" in capsys.readouterr().err


def test_check_of_an_assert_that_no_data_can_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "leak.pat"
    path.write_text("attention leak { heads 1 mask full assert mask within causal }")
    assert main(["mask", str(path), "--k-len", "4", "--digest", "--check"]) == 1
    assert "assert-failed" in capsys.readouterr().err


PADDED = """layout pair = text[8, valid = length] + image[6, valid = seen]

attention padded(seen: runtime = 6) {
    heads 1
    layout pair
    input length[b] : int
    mask  full
}
"""


@pytest.mark.parametrize("via", ["reference", "plan"])
@pytest.mark.parametrize(
    ("length", "seen", "message"),
    [
        (9, 6, "`length`: expected 0 to 8 tokens of `text`, got 9"),
        (-1, 6, "`length`: expected 0 to 8 tokens of `text`, got -1"),
        (8, 7, "`seen`: expected 0 to 6 tokens of `image`, got 7"),
        (8, 6, ""),
        (0, 0, ""),
    ],
)
def test_a_segment_has_no_more_valid_tokens_than_tokens(
    length: int,
    seen: int,
    message: str,
    via: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, table = tmp_path / "padded.pat", tmp_path / "length.npy"
    path.write_text(PADDED)
    np.save(table, np.array([length]))
    asked = ["mask", str(path), "--input", f"length={table}", "--set", f"seen={seen}"]
    asked += ["--digest", "--via", via]
    if message:
        with pytest.raises(SystemExit) as exit_:
            main(asked)
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
    else:
        assert main(asked) == 0
        valid = length + seen
        visible = json.loads(capsys.readouterr().out)["visible"]
        assert visible == valid * valid + 14 - valid
