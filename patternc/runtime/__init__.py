"""Attentions that were compiled ahead of time: torch and the GPU's driver, no compiler.

In: a package that `patternc build` wrote. Out: an attention to call. Not its job:
making packages. This folder imports nothing but torch and the standard library, and its
own files by relative names, so that a copy of it works alone, under any name.
"""

from __future__ import annotations

from .attention import PackagedAttention, load
from .format import PackageError
from .package import Package, read_package

__all__ = ["Package", "PackageError", "PackagedAttention", "load", "read_package"]
