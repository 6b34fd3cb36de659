"""Templates of generated modules.

In: the name of a `.py.tmpl` file and the lines for its holes. Out: text. Not its job:
what the lines say (`emit`, `ranges`).

A hole is a line `# <<name>>` of its own; its lines are indented as it is. So a
template is Python text that reads like the kernel it makes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

_HOLE = re.compile(r"( *)# <<(\w+)>>")


def fill(
    name: str,
    holes: Mapping[str, Sequence[str]] | None = None,
    package: str = __package__,
) -> str:
    """The text of `name`.py.tmpl of a package, every hole replaced by its lines.

    Raises `KeyError` for a hole without lines, `ValueError` for lines without a hole.
    """
    given = dict(holes or {})
    used: set[str] = set()
    lines: list[str] = []
    for line in read(f"{name}.py.tmpl", package).splitlines():
        hole = _HOLE.fullmatch(line)
        if hole is None:
            lines.append(line)
            continue
        used.add(hole[2])
        lines += [hole[1] + part if part else "" for part in given[hole[2]]]
    if unused := sorted(given.keys() - used):
        raise ValueError(f"{name}.py.tmpl has no hole {', '.join(unused)}")
    return "\n".join(lines) + "\n"


@cache
def read(file: str, package: str = __package__) -> str:
    """The text of a file of a package."""
    return resources.files(package).joinpath(file).read_text(encoding="utf-8")
