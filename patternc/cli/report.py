"""Telling the user what went wrong.

In: diagnostics, or a sentence. Out: text on stderr, or JSON lines on stdout. Not its
job: drawing a diagnostic (`patternc.render`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from patternc.diagnostics import Diagnostic
from patternc.render import render_json, render_text


class UsageError(Exception):
    """Arguments that make no sense; the message says which and why."""


def report(diagnostics: Iterable[Diagnostic], style: str) -> None:
    """Show diagnostics: "text" goes to stderr, "json" to stdout, one line each."""
    found = tuple(diagnostics)
    if not found:
        return
    if style == "json":
        print(render_json(found).rstrip("\n"))
    else:
        print(render_text(found).rstrip("\n"), file=sys.stderr)


def complain(message: str, severity: str = "error") -> None:
    """One line on stderr for what no place in a `.pat` file can show."""
    print(f"patternc: {severity}: {message}", file=sys.stderr)
