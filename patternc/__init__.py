"""patternc: a compiler for attention patterns. The public names, and nothing else.

Importing this imports neither torch nor triton: each name is fetched when it is
first used. Not its job: anything that a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patternc import nn
    from patternc.attention import Attention
    from patternc.diagnostics import PatternError
    from patternc.functional import sdpa
    from patternc.loading import load
    from patternc.plan.kernel import Schedule

__version__ = "0.1.0"

__all__ = [
    "Attention",
    "PatternError",
    "Schedule",
    "__version__",
    "load",
    "nn",
    "sdpa",
]

_HOMES = {
    "Attention": "patternc.attention",
    "PatternError": "patternc.diagnostics",
    "Schedule": "patternc.plan.kernel",
    "load": "patternc.loading",
    "sdpa": "patternc.functional",
}

_MODULES = ("nn",)
"""Modules that are public names themselves."""


def __getattr__(name: str) -> object:
    """Fetch a public name from its module (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
