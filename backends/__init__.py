"""The backends by name.

In: a name or a device. Out: a `Backend`, imported when it is first asked for, so
that naming one needs neither torch nor triton. Not its job: what a backend does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from patternc.backends.protocol import Backend

BACKENDS: dict[str, str] = {
    "reference": "patternc.backends.reference:ReferenceBackend",
    "tiled": "patternc.backends.tiled:TiledBackend",
    "triton": "patternc.backends.triton.load:TritonBackend",
}
"""Each backend's class as "module:name"."""


def get(name: str) -> Backend:
    """The backend of that name. Raises `ValueError` if there is none."""
    if name not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f"unknown backend {name!r}; the backends are {known}")
    module, _, attribute = BACKENDS[name].partition(":")
    return cast("Backend", getattr(importlib.import_module(module), attribute)())


def default_for(device: str) -> str:
    """The name of the backend for a device type: `triton` on cuda, else `tiled`."""
    return "triton" if device == "cuda" else "tiled"
