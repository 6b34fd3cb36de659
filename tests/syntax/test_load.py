"""Reading files that are none, cannot be read, are too large or are not text."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from patternc.diagnostics import Diagnostic, PatternError
from patternc.limits import FILE_BYTES
from patternc.syntax.load import read_source


def failure(path: str | Path) -> Diagnostic:
    with pytest.raises(PatternError) as caught:
        read_source(path)
    (found,) = caught.value.diagnostics
    return found


def test_a_file_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.pat"
    path.write_bytes("\ufeff# é\r\npattern p = full\n".encode())
    source = read_source(path)
    assert source.text == "# é\r\npattern p = full\n"
    assert source.name == str(path)


def test_a_missing_file(tmp_path: Path) -> None:
    found = failure(tmp_path / "missing.pat")
    assert found.code == "cannot-read"
    assert "no such file" in found.message


def test_a_directory(tmp_path: Path) -> None:
    found = failure(tmp_path)
    assert (found.code, "is a directory" in found.message) == ("cannot-read", True)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pat")
    found = failure(tmp_path / "pipe.pat")
    assert (found.code, "not a regular file" in found.message) == ("cannot-read", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "x.pat"
    path.write_text("pattern p = full\n")
    path.chmod(0)
    assert failure(path).code == "cannot-read"


@pytest.mark.parametrize("path", ["a\0b.pat", "x" * 5000])
def test_what_is_no_path(path: str) -> None:
    found = failure(path)
    assert found.code == "cannot-read"
    assert "\0" not in found.message


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.pat"
    path.write_bytes(b"pattern p = full\n# caf\xe9\n")
    found = failure(path)
    assert found.code == "not-utf8"
    assert "byte 22 (0xe9, line 2, column 6)" in found.message
    assert (found.span.line, found.span.start) == (2, 22)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pat"
    with open(path, "wb") as file:
        file.truncate(100 << 20)
    start = time.perf_counter()
    found = failure(path)
    assert time.perf_counter() - start < 0.5
    assert found.code == "file-size"
    assert str(100 << 20) in found.message


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pat"
    path.write_bytes(b"#" * FILE_BYTES)
    assert len(read_source(path).text) == FILE_BYTES
    path.write_bytes(b"#" * (FILE_BYTES + 1))
    assert failure(path).code == "file-size"
