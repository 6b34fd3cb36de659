"""Templates whose names stand between two `@`: C files, and small Python files.

In: a package, the name of a `.tmpl` file in it, a text for each of its names. Out: text.
Not its job: what the texts say; kernels, whose templates have holes of whole lines
(`backends.triton.template`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_NAME = re.compile(r"@(\w+)@")


def fill(package: str, file: str, names: Mapping[str, str]) -> str:
    """The text of `file`.tmpl with every name replaced.

    A line that becomes empty by it is left out. Raises `KeyError` for a name without a
    text.
    """
    place = resources.files(package).joinpath(f"{file}.tmpl")
    lines = []
    for line in place.read_text(encoding="utf-8").splitlines():
        found = _NAME.sub(lambda match: names[match[1]], line)
        if found.strip() or not line.strip():
            lines.append(found)
    return "\n".join(lines) + "\n"
