"""Reading a `.pat` file.

In: a path. Out: a `Source`, or a `PatternError` that says why there is none. Not its
job: what the text means.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from patternc.diagnostics import Diagnostic, PatternError
from patternc.limits import FILE_BYTES
from patternc.source import Source, Span


def read_source(path: str | os.PathLike[str]) -> Source:
    """The text of a UTF-8 file; a byte order mark is dropped.

    Raises `PatternError` for what is missing, unreadable, no regular file, not UTF-8
    or larger than `FILE_BYTES` (which is asked before anything is read).
    """
    name = os.fspath(path)
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise _failure("cannot-read", name, f"{_shown(name)} is {_what(status)}")
        if status.st_size > FILE_BYTES:
            raise _too_large(name, status.st_size)
        with open(name, "rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"cannot read {_shown(name)}: {reason}"
        raise _failure("cannot-read", name, message) from None
    except ValueError:  # a NUL in the path
        raise _failure("cannot-read", name, f"{_shown(name)} is no path") from None
    if len(data) > FILE_BYTES:  # it grew, or its size was not told
        raise _too_large(name, len(data))
    return Source(_printable(name), _decoded(name, data))


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace")
        source = Source(_printable(name), before)
        end = len(before)
        line, column = source.line_and_column(end)
        byte = data[error.start]
        message = (
            f"byte {error.start} (0x{byte:02x}, line {line}, column {column})"
            " is not UTF-8"
        )
        found = Diagnostic(
            "not-utf8",
            message,
            Span(source, end, end),
            "the text can be read up to here",
            "save the file as UTF-8",
        )
        raise PatternError([found]) from None


def _too_large(name: str, size: int) -> PatternError:
    message = f"{_shown(name)} has {size} bytes; a file may have {FILE_BYTES}"
    return _failure("file-size", name, message)


def _failure(code: str, name: str, message: str) -> PatternError:
    span = Span(Source(_printable(name), ""), 0, 0)
    return PatternError([Diagnostic(code, message, span)])


def _shown(name: str) -> str:
    return f"`{_printable(name)}`"


def _printable(name: str) -> str:
    """A path as text: bytes that are no text and control characters are escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in os.fsencode(name).decode("utf-8", errors="backslashreplace")
    )


def _what(status: os.stat_result) -> str:
    return "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
