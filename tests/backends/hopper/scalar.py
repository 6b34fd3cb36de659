"""Functions of a kernel in Gluon, run as plain Python: it has no interpreter.

In: a program's text and names of functions that compute with scalars and load single
numbers. Out: the same as Python functions. Not its job: anything with tiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Place:
    """An address of a tensor's element."""

    tensor: Tensor
    at: int = 0

    def __add__(self, other: int) -> Place:
        return Place(self.tensor, self.at + other)

    def __sub__(self, other: int) -> Place:
        return Place(self.tensor, self.at - other)


class Language:
    """What such functions use of `triton.language`."""

    maximum, minimum = max, min

    @staticmethod
    def where(condition: bool, lhs: int, rhs: int) -> int:
        return lhs if condition else rhs

    @staticmethod
    def load(place: Place, mask: bool = True, other: int = 0) -> int:
        if not mask:
            return other
        assert 0 <= place.at < place.tensor.numel()
        return int(place.tensor.flatten()[place.at])


def functions(text: str, *names: str) -> dict[str, Callable[..., Any]]:
    """Functions of a module's text, by name."""
    found: dict[str, Any] = {"tl": Language, "GRANULE": 16}
    for name in names:
        pattern = rf"^def {name}\(.*?(?=^@|^def )"
        match = re.search(pattern, text, re.DOTALL | re.MULTILINE)
        assert match is not None
        body = re.sub(r"\.to\(tl\.\w+\)|: gl\.constexpr", "", match[0])
        exec(body, found)  # noqa: S102
    return found
