"""The standard patterns, one `.pat` file each.

In: a name. Out: the text of its file. Not its job: parsing it, or finding out which
patterns a program uses (`patternc.check.scope`).

A file declares a pattern of its name, which programs can use, or, where the mask needs
inputs or a layout, an attention of its name, to copy from.
"""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def files() -> tuple[str, ...]:
    """The names of all files, sorted."""
    folder = resources.files(__name__)
    found = (entry.name for entry in folder.iterdir())
    return tuple(sorted(n.removesuffix(".pat") for n in found if n.endswith(".pat")))


@cache
def names() -> tuple[str, ...]:
    """The names of the patterns that every program can use, sorted."""
    return tuple(name for name in files() if _declares_pattern(name))


@cache
def text(name: str) -> str:
    """The text of a standard file. Raises `KeyError` for another name."""
    if name not in files():
        raise KeyError(name)
    return (resources.files(__name__) / f"{name}.pat").read_text(encoding="utf-8")


def _declares_pattern(name: str) -> bool:
    """Whether a line of the file starts the pattern of its name."""
    starts = (f"pattern {name} ", f"pattern {name}(")
    return any(line.startswith(starts) for line in text(name).splitlines())
