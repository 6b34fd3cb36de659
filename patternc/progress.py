"""Progress of slow steps, on stderr.

In: what is being done, around the code that does it. Out: nothing for two seconds,
then a line with the elapsed seconds, rewritten in place on a terminal and printed anew
every ten seconds elsewhere. Not its job: results, which go to stdout.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

SILENT_SECONDS = 2.0
"""A step that takes no longer says nothing."""

_LOG_SECONDS = 10.0


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[None]:
    """Show that `what` is going on for as long as the body runs."""
    if quiet:
        yield
        return
    stream = sys.stderr
    done = threading.Event()
    began = time.monotonic()
    teller = threading.Thread(
        target=_tell, args=(what, began, done, stream), daemon=True
    )
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
        took = time.monotonic() - began
        if took > SILENT_SECONDS:
            start = "\r" if stream.isatty() else ""
            print(f"{start}{what}: {took:.1f} s", file=stream, flush=True)


def _tell(what: str, began: float, done: threading.Event, stream: TextIO) -> None:
    """Print the elapsed seconds until `done` is set."""
    in_place = stream.isatty()
    pause = SILENT_SECONDS
    while not done.wait(pause):
        elapsed = time.monotonic() - began
        line = f"{what} ... {elapsed:.0f} s"
        print(
            f"\r{line}" if in_place else line, end="" if in_place else "\n", file=stream
        )
        stream.flush()
        pause = 1.0 if in_place else _LOG_SECONDS
