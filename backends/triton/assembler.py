"""NVIDIA's assembler, made to give the same code twice.

In: a folder. Out: a scope in which the assembler that Triton starts finds the same
surroundings on every machine. Not its job: starting it.

Code that spills depends on where the assembler's own memory lies: on addresses, which
Linux draws by lot for each process, and on how long the names of its files are. In the
scope processes that are started have the same addresses each time, and Triton's files
lie in a folder whose name has always as many letters.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LENGTH = 200
"""Letters of the folder's path: more than those of any usual folder for such files."""

_ASK = 0xFFFFFFFF
_NOT_BY_LOT = 0x0040000
"""`ADDR_NO_RANDOMIZE` of Linux's personality(2)."""


@contextmanager
def steady(folder: Path) -> Iterator[None]:
    """In this thread and for the processes that it starts; `folder` exists.

    Where a sandbox allows no fixed addresses (`has_fixed_addresses`), only names are kept.
    """
    missing = _LENGTH - len(str(folder)) - 1
    own = folder / ("_" * missing) if missing > 0 else folder
    own.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None)
    before, directory = libc.personality(_ASK), tempfile.tempdir
    libc.personality(before | _NOT_BY_LOT)
    tempfile.tempdir = str(own)
    try:
        yield
    finally:
        tempfile.tempdir = directory
        libc.personality(before)


def has_fixed_addresses() -> bool:
    """Whether this process may start others whose addresses are not drawn by lot."""
    libc = ctypes.CDLL(None)
    before = libc.personality(_ASK)
    is_allowed: bool = libc.personality(before | _NOT_BY_LOT) != -1
    libc.personality(before)
    return is_allowed
