"""The standard patterns, one `.pat` file each.

In: a name. Out: the text of its file. Not its job: parsing it, or finding out which
patterns a program uses (`patternc.check.scope`).
"""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def names() -> tuple[str, ...]:
    """The names of the standard patterns, sorted."""
    folder = resources.files(__name__)
    found = (entry.name for entry in folder.iterdir())
    return tuple(sorted(n.removesuffix(".pat") for n in found if n.endswith(".pat")))


def text(name: str) -> str:
    """The text of a standard pattern's file. Raises `KeyError` for another name."""
    if name not in names():
        raise KeyError(name)
    return (resources.files(__name__) / f"{name}.pat").read_text(encoding="utf-8")
