"""The backends by name.

In: a name or a device. Out: a `Backend`, imported when it is first asked for, so
that naming one needs neither torch nor triton. Not its job: what a backend does.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from patternc.backends.protocol import Backend

BACKENDS: dict[str, str] = {
    "reference": "patternc.backends.reference:ReferenceBackend",
    "tiled": "patternc.backends.tiled:TiledBackend",
    "triton": "patternc.backends.triton.load:TritonBackend",
    "hopper": "patternc.backends.hopper.load:HopperBackend",
}
"""Each backend's class as "module:name"."""


def get(name: str) -> Backend:
    """The backend of that name. Raises `ValueError` if there is none."""
    if name not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f"unknown backend {name!r}; the backends are {known}")
    module, _, attribute = BACKENDS[name].partition(":")
    return cast("Backend", getattr(importlib.import_module(module), attribute)())


def get_ready(name: str | None = None) -> None:
    """Begin, in other threads, what a backend does once in a process.

    For the time in which a program is compiled. Only `triton` and `hopper` have such
    things to do, and nothing is done before PyTorch has started CUDA; None is the
    backend by default.
    """
    if name is not None and name not in INTERPRETED:
        return
    if importlib.import_module("torch").cuda.is_initialized():
        importlib.import_module("patternc.backends.triton.ready").get_ready()


INTERPRETED = ("triton", "hopper")
"""The backends whose kernels run in Triton's interpreter where there is no GPU."""


def default_for(device: str) -> str:
    """The name of the backend for a device type: on cuda `hopper` or `triton`.

    Elsewhere `tiled`. It is `hopper` if the current device is one.
    """
    if device != "cuda":
        return "tiled"
    return "hopper" if _is_hopper() else "triton"


def compared_on(device: str) -> list[str]:
    """The backends that differ from one another on a device type, but the reference.

    On all but a GPU the kernels of `hopper` are those of `triton`.
    """
    same = {"reference"} if device == "cuda" else {"reference", "hopper"}
    return [name for name in BACKENDS if name not in same]


@cache
def _is_hopper() -> bool:
    cuda = importlib.import_module("torch").cuda
    if not cuda.is_available() or importlib.import_module("torch").version.hip:
        return False
    return bool(cuda.get_device_capability()[0] == 9)
