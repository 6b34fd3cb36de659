"""A package that was read and checked.

In: the path of a file, or its bytes. Out: its manifest, and its blobs when they are
asked for. Not its job: running anything (`attention`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from .codec import decode
from .format import MOST_BYTES, PackageError, expanded, split
from .manifest import Manifest
from .steps import check_choosing, check_formulas


@dataclass(frozen=True, slots=True)
class Package:
    """Made by `read_package`. `places` are where each stored blob begins."""

    manifest: Manifest
    stored: memoryview
    places: tuple[int, ...]

    def blob(self, number: int) -> bytes:
        """A blob by its number, expanded and checked. Raises `PackageError`."""
        section, start = self.manifest.blobs[number], self.places[number]
        return expanded(section, bytes(self.stored[start : start + section.stored]))

    @property
    def dense(self) -> Package | None:
        """The program that chooses nothing, if there is one, with the same blobs."""
        other = self.manifest.alternative
        if other is None:
            return None
        manifest = replace(
            self.manifest,
            expected=other.expected,
            facts=other.facts,
            variants=other.variants,
            alternative=None,
        )
        return replace(self, manifest=manifest)


def read_package(path: str | os.PathLike[str]) -> Package:
    """Read a file. Raises `OSError`, and `PackageError` for what is no sound package."""
    file = Path(path)
    if (size := file.stat().st_size) > MOST_BYTES:
        raise PackageError(f"{file.name}: {size} bytes are too many for a package")
    try:
        return package_of(file.read_bytes())
    except PackageError as error:
        raise PackageError(f"{file.name}: {error}") from None


def package_of(content: bytes) -> Package:
    """The same, from the bytes of a file."""
    text, stored = split(content)
    manifest = decode(Manifest, text)
    places, end = [], 0
    for section in manifest.blobs:
        places.append(end)
        end += section.stored
    if end != len(stored):
        raise PackageError(f"blobs of {end} bytes, and {len(stored)} are there")
    try:
        check_formulas(manifest.facts)
        if manifest.alternative is not None:
            check_formulas(manifest.alternative.facts)
            check_choosing(manifest.alternative.choosing, manifest.facts)
    except ValueError as error:
        raise PackageError(f"the manifest cannot be read: {error}") from None
    return Package(manifest, stored, tuple(places))
