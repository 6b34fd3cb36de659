"""Which attentions of a file a command works on.

In: a source and what --entry said. Out: names. Not its job: whether they can be
compiled (`patternc.check`).
"""

from __future__ import annotations

from patternc.cli.report import UsageError
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse


def chosen(source: Source, entry: str | None) -> tuple[str, ...]:
    """The entry that was asked for, or all attentions of the file, in its order.

    Raises `PatternError` for what can't be read, `UsageError` if there is no attention.
    """
    if entry is not None:
        return (entry,)
    items = parse(source).items
    names = tuple(i.name.text for i in items if isinstance(i, ast.Attention))
    if not names:
        raise UsageError(
            f"{source.name} has no attention; --entry may name a pattern of it"
        )
    return names
