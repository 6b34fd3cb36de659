"""Which of a package's code a device runs.

In: the targets of a package, and a device's own. Out: one target, as machine code or as
PTX that the driver assembles. Not its job: loading it (`launch`).

Machine code of sm_80 runs on 8.x devices of that or a later minor version. From sm_90 on
Triton's code is for one architecture alone, and its PTX as well; PTX of older targets is
for every later device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .format import PackageError

_FIRST_SPECIFIC = 90


@dataclass(frozen=True, slots=True)
class Choice:
    """`target` of the package; whether its PTX is taken; whether tiles are read by TMA."""

    target: str
    is_ptx: bool

    @property
    def has_tma(self) -> bool:
        """Whether kernels of the target read tiles by descriptors."""
        return self.target.startswith("sm_") and _number(self.target) >= _FIRST_SPECIFIC


def choose(code: Collection[str], ptx: Collection[str], device: str) -> Choice:
    """The best of the targets with `code` and those with `ptx` for a device.

    Raises `PackageError` if there is none.
    """
    if device in code:
        return Choice(device, False)
    if device.startswith("sm_"):
        own = _number(device)
        near = [
            x
            for x in code
            if x.startswith("sm_")
            and own < _FIRST_SPECIFIC
            and _number(x) // 10 == own // 10
            and _number(x) < own
        ]
        if near:
            return Choice(max(near, key=_number), False)
        older = [x for x in ptx if x.startswith("sm_") and _number(x) <= own]
        if older:
            return Choice(max(older, key=_number), True)
    raise PackageError(
        f"the package has code for {', '.join(sorted(code))}, and this device is {device};"
        f" build it with --target {device}, or with sm_80, whose PTX later devices take"
    )


def _number(target: str) -> int:
    return int(target.removeprefix("sm_"))
