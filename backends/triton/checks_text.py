"""The text of `backends/checks.py`, for generated modules.

In: that file, which reads nothing of patternc. Out: its imports and its body, so that
a generated module checks calls just as patternc does. Not its job: the checks.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import resources


def imports() -> list[str]:
    """The import statements, without torch's and those of `__future__`."""
    text, statements = _parsed()
    found = [ast.get_source_segment(text, node) or "" for node in statements]
    return [line for line in found if "__future__" not in line and "torch" not in line]


def body() -> str:
    """All that follows the imports, ending in a newline."""
    text, statements = _parsed()
    last = statements[-1].end_lineno or 0
    return "\n".join(text.splitlines()[last:]).strip("\n") + "\n"


@cache
def _parsed() -> tuple[str, list[ast.stmt]]:
    """The text and its import statements."""
    file = resources.files("patternc.backends").joinpath("checks.py")
    text = file.read_text(encoding="utf-8")
    nodes = ast.parse(text).body
    return text, [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
