"""A package as one file.

In: a manifest's text and the blobs it numbers, or the bytes of a file. Out: the bytes,
or both again. Not its job: what the manifest says (`manifest`).

The file is a header, the manifest, and the blobs end to end, each compressed. The header
is a magic number, the version of the format, the manifest's length, the file's length
and the SHA-256 of every other byte: one changed byte anywhere is refused. A file is
data: nothing in it is executed here, and no size in it is believed before it is checked.
The hash tells damage from none; who made a file it cannot tell.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"\x89PATK\r\n\x1a"
VERSION = 3

MOST_BYTES = 1 << 30
"""The longest file."""

MOST_MANIFEST = 1 << 26
MOST_BLOB = 1 << 28
"""The longest blob, before it is compressed."""

_HEADER = struct.Struct("<8sIIQ32s")
_DIGEST_AT = _HEADER.size - 32


class PackageError(Exception):
    """A file is no package, is damaged, or has nothing for this machine."""


@dataclass(frozen=True, slots=True)
class Section:
    """One blob in a file: `stored` compressed bytes of `size`, and their SHA-256.

    `sha256` is that of the blob itself, in hexadecimal digits.
    """

    stored: int
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MOST_BLOB or not 0 < self.stored <= MOST_BYTES:
            raise ValueError(
                f"a blob of {self.size} bytes, {self.stored} of them stored"
            )
        if len(self.sha256) != 64:
            raise ValueError("a hash that is no SHA-256")


def compressed(blob: bytes) -> tuple[Section, bytes]:
    """A blob as a file holds it. The same bytes for the same blob and zlib."""
    stored = zlib.compress(blob, 9)
    return Section(len(stored), len(blob), hashlib.sha256(blob).hexdigest()), stored


def expanded(section: Section, stored: bytes) -> bytes:
    """The blob again. Never allocates more than the section's size says.

    Raises `PackageError`.
    """
    reader = zlib.decompressobj()
    try:
        blob = reader.decompress(stored, section.size + 1)
    except zlib.error as error:
        raise PackageError(f"a blob cannot be read: {error}") from None
    if not reader.eof or reader.unused_data or len(blob) != section.size:
        raise PackageError(f"a blob is not of the {section.size} bytes it says")
    if hashlib.sha256(blob).hexdigest() != section.sha256:
        raise PackageError("a blob has another hash than the manifest says")
    return blob


def join(manifest: bytes, stored: Sequence[bytes]) -> bytes:
    """The bytes of a file."""
    body = b"".join([manifest, *stored])
    sizes = (MAGIC, VERSION, len(manifest), _HEADER.size + len(body))
    start = _HEADER.pack(*sizes, bytes(32))[:_DIGEST_AT]
    return start + hashlib.sha256(start + body).digest() + body


def split(content: bytes) -> tuple[bytes, memoryview]:
    """The manifest's text, and all blobs, still compressed. Raises `PackageError`."""
    if content[: len(MAGIC)] != MAGIC:
        raise PackageError("this is no package: it does not begin as one")
    if len(content) < _HEADER.size:
        raise PackageError("the package is cut off within its header")
    _, version, manifest_size, size, digest = _HEADER.unpack_from(content)
    if version != VERSION:
        raise PackageError(
            f"the package has format version {version}, this runtime reads {VERSION};"
            " build it again, or take the runtime of the patternc that built it"
        )
    if size != len(content):
        raise PackageError(
            f"the package has {len(content)} bytes, its header says {size}"
        )
    if manifest_size > min(MOST_MANIFEST, size - _HEADER.size):
        raise PackageError(f"a manifest of {manifest_size} bytes does not fit")
    view = memoryview(content)
    found = hashlib.sha256(view[:_DIGEST_AT])
    found.update(view[_HEADER.size :])
    if found.digest() != digest:
        raise PackageError("the package is damaged: its bytes have another hash")
    end = _HEADER.size + manifest_size
    return content[_HEADER.size : end], view[end:]
