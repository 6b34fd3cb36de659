"""The text of functions that generated modules share with patternc.

In: files of `backends/` that read nothing of patternc, and the names of the functions
that a module calls. Out: their text with all that it needs, so that a generated module
checks calls, and sums in its `reference`, just as patternc does. Not its job: what the
functions do.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from functools import cache
from importlib import resources

FILES = ("checks.py", "input_checks.py", "sums.py")
"""They share no name."""


def imports(names: Collection[str]) -> list[str]:
    """The import statements that `body(names)` needs, without torch's."""
    _, nodes = _parsed()
    used = {word for node in _needed(names) for word in _names_in(node)}
    found: set[str] = set()
    sources: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {f"import {x.name}" for x in node.names if x.name in used}
        if isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__"):
            words = {x.name for x in node.names if x.name in used}
            sources.setdefault(str(node.module), set()).update(words)
    for module, words in sources.items():
        if words:
            found.add(f"from {module} import {', '.join(sorted(words))}")
    return sorted(found - {"import torch"})


def body(names: Collection[str]) -> str:
    """The definitions of `names` and of what they use, ending in a newline."""
    text, _ = _parsed()
    lines = text.splitlines()
    needed = _needed(names)
    parts, last = [], None
    for node in needed:
        start = node.lineno - 1
        own = "\n".join(lines[start : node.end_lineno])
        # Two empty lines around functions, none between a name and its docstring.
        if last is not None:
            if isinstance(node, ast.Expr):
                gap = "\n"
            elif isinstance(node, ast.FunctionDef) or isinstance(last, ast.FunctionDef):
                gap = "\n\n\n"
            else:
                gap = "\n\n"
            parts.append(gap)
        parts.append(own)
        last = node
    return "".join(parts) + "\n"


@cache
def _parsed() -> tuple[str, list[ast.stmt]]:
    """The text of all files, one after another, and its statements."""
    folder, parts = resources.files("patternc.backends"), []
    for name in FILES:
        text = folder.joinpath(name).read_text(encoding="utf-8")
        start = ast.parse(text).body[1].lineno - 1  # after the docstring
        parts.append("\n".join(text.splitlines()[start:]))
    whole = "\n\n\n".join(parts)
    return whole, ast.parse(whole).body


def _needed(names: Collection[str]) -> list[ast.stmt]:
    """The statements that define `names` and what these use, in order."""
    _, nodes = _parsed()
    defined = {name: node for node in nodes for name in _defined_by(node)}
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in defined and name not in wanted:
            wanted.add(name)
            pending += _names_in(defined[name])
    found: list[ast.stmt] = []
    follows = False
    for node in nodes:
        is_text = isinstance(node, ast.Expr)
        follows = follows if is_text else bool(wanted & set(_defined_by(node)))
        if follows:
            found.append(node)
    return found


def _defined_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [item.id for item in node.targets if isinstance(item, ast.Name)]
    return []


@cache
def _names_in(node: ast.stmt) -> tuple[str, ...]:
    """The names that a statement of `_parsed()` reads or sets."""
    return tuple(item.id for item in ast.walk(node) if isinstance(item, ast.Name))
