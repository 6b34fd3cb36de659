"""The arguments of a launch as bytes, where the kernel expects them.

In: a variant, and the arguments that the host code gives. Out: the address of an array
of pointers to them, as the driver takes it. Not its job: places (`layout`), launching.

Buffers are kept for the next launch; the driver copies them before it returns.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .layout import MAP_ALIGNMENT, SCRATCH, format_of, slots_of
from .manifest import Argument, Tile, Variant
from .tiles import ELEMENTS

Encode = Callable[[Tile, int, int, Sequence[int], Sequence[int]], bytes]
"""A tensor map from a tile, an element's bytes, an address, sizes and strides."""

_MOST_MAPS = 256

_NO_NUMBERS = ("pointer", "descriptor", "nothing")

_NO_SCRATCH = [0] * len(SCRATCH)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory for the arguments of one launch: `start` is on a multiple of 64 bytes."""

    memory: ctypes.Array[ctypes.c_char]
    start: int
    pointers: ctypes.Array[ctypes.c_void_p]
    address: int

    def content(self, size: int) -> bytes:
        """The first `size` bytes of the arguments."""
        return self.memory.raw[self.start : self.start + size]


class Packer:
    """Packs the arguments of one variant. Usable by several threads at once."""

    __slots__ = (
        "_arguments",
        "_buffers",
        "_encode",
        "_format",
        "_maps",
        "_name",
        "_numbers_from",
        "slots",
    )

    def __init__(self, variant: Variant, encode: Encode) -> None:
        self.slots = slots_of(variant.arguments)
        self._format = struct.Struct(format_of(self.slots))
        self._name, self._arguments = variant.kernel, variant.arguments
        self._encode = encode
        others = [at for at, x in enumerate(self._arguments) if x.kind in _NO_NUMBERS]
        self._numbers_from = max(others, default=-1) + 1
        self._buffers: list[Buffer] = []
        self._maps: dict[tuple[object, ...], bytes] = {}

    def pack(self, given: Sequence[Any]) -> Buffer:
        """A buffer that holds the arguments; `free` takes it back.

        Raises `ValueError` for an address that is not on 16 bytes where the kernel
        needs it, and for a number that does not fit.
        """
        values: list[Any] = []
        crooked, end = 0, self._numbers_from
        if len(given) != len(self._arguments):
            raise ValueError(f"{self._name}: {len(given)} arguments, not as compiled")
        for argument, value in zip(self._arguments, given[:end], strict=False):
            kind = argument.kind
            if kind == "pointer":
                address = value.data_ptr()
                if argument.aligned:
                    crooked |= address
                values.append(address)
            elif kind == "descriptor":
                values += self._described(argument, value)
            elif kind == "nothing":
                if value is not None:
                    raise ValueError(f"{self._name}: `{argument.name}` is not taken")
            else:
                values.append(value)
        if crooked & 15:
            raise ValueError(self._crooked(given))
        values += given[end:]
        values += _NO_SCRATCH
        buffer = self._buffers.pop() if self._buffers else self._new()
        try:
            self._format.pack_into(buffer.memory, buffer.start, *values)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{self._name}: a number does not fit: {error}") from None
        return buffer

    def free(self, buffer: Buffer) -> None:
        """Let a later launch use the buffer."""
        self._buffers.append(buffer)

    def _described(self, argument: Argument, value: Any) -> list[Any]:
        base, shape, strides = value.base, value.shape, value.strides
        key = (argument.name, base.data_ptr(), *shape, *strides)
        found = self._maps.get(key)
        if found is None:
            assert argument.tile is not None
            size = ELEMENTS[argument.element]
            found = self._encode(argument.tile, size, base.data_ptr(), shape, strides)
            if len(self._maps) >= _MOST_MAPS:
                self._maps.clear()
            self._maps[key] = found
        return [found, *shape, *strides]

    def _crooked(self, given: Sequence[Any]) -> str:
        for argument, value in zip(self._arguments, given, strict=True):
            is_pointer = argument.kind == "pointer" and argument.aligned
            if is_pointer and value.data_ptr() % 16:
                break
        return f"{self._name}: `{argument.name}`: expected an address on 16 bytes"

    def _new(self) -> Buffer:
        memory = ctypes.create_string_buffer(self._format.size + MAP_ALIGNMENT)
        address = ctypes.addressof(memory)
        start = -address % MAP_ALIGNMENT
        places = [address + start + slot.offset for slot in self.slots]
        pointers = (ctypes.c_void_p * len(places))(*places)
        return Buffer(memory, start, pointers, ctypes.addressof(pointers))
