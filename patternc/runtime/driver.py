"""The GPU's driver, called as it is.

In: machine code, arguments, a stream. Out: launched kernels. Not its job: which code and
which arguments (`launch`). NVIDIA: the CUDA driver API in libcuda; AMD: libamdhip64.
Both come with what torch needs itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch

from .format import PackageError
from .manifest import Tile


class Driver(Protocol):
    """What a package needs of a GPU. Calls concern the current device of torch."""

    def device(self) -> int:
        """The number of the current device."""

    def stream(self, device: int) -> int:
        """The handle of torch's current stream."""

    def architecture(self, device: int) -> str:
        """Its target: `sm_90`, `gfx942`."""

    def most_shared(self, device: int) -> int:
        """The bytes of shared memory that a block may have."""

    def load(self, code: bytes) -> int:
        """Load machine code, or PTX ending in a zero byte; the module's handle."""

    def function(self, module: int, name: str, shared: int) -> int:
        """A kernel of a module, allowed so many bytes of shared memory."""

    def launch(
        self,
        function: int,
        grid: tuple[int, ...],
        threads: int,
        shared: int,
        stream: int,
        parameters: int,
    ) -> None:
        """Launch a grid of one to three axes; `parameters`: pointers to arguments."""

    def encode(
        self,
        tile: Tile,
        element_size: int,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
    ) -> bytes:
        """A tensor map of 128 bytes; `shape` and `strides` in elements."""


class DriverError(RuntimeError):
    """The driver refused a call."""


@cache
def driver() -> Driver:
    """The driver that torch was built for. Raises `PackageError` if there is none."""
    name = "libcuda.so.1" if torch.version.hip is None else "libamdhip64.so"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise PackageError(f"no driver of a GPU: {error}") from None
    return Cuda(library) if torch.version.hip is None else Hip(library)


def _current_stream(device: int) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream)


_RAW_STREAM = getattr(torch._C, "_cuda_getCurrentRawStream", _current_stream)
"""The same without an object around it: a microsecond less for each launch."""

_MAX_SHARED_OPTIN = 97
_FUNCTION_MAX_DYNAMIC_SHARED = 8
_PREFER_SHARED = 1
_PLAIN_SHARED = 48 * 1024
"""A kernel that wants more has to ask for it."""

_L2_128_BYTES = 2
_ONES = (1, 1, 1)
_NO_CONTEXT = (3, 201)
"""CUDA_ERROR_NOT_INITIALIZED and CUDA_ERROR_INVALID_CONTEXT."""


class Cuda:
    """The CUDA driver API."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        handle, number = ctypes.c_void_p, ctypes.c_uint
        self._launch = library.cuLaunchKernel
        self._launch.argtypes = [handle, *[number] * 7, *[handle] * 3]

    def device(self) -> int:
        """See `Driver`."""
        return torch.cuda.current_device()

    def stream(self, device: int) -> int:
        """See `Driver`."""
        return int(_RAW_STREAM(device))

    def architecture(self, device: int) -> str:
        """See `Driver`."""
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm_{major}{minor}"

    def most_shared(self, device: int) -> int:
        """See `Driver`."""
        value = ctypes.c_int()
        get = self._library.cuDeviceGetAttribute
        self._check(get(ctypes.byref(value), _MAX_SHARED_OPTIN, device))
        return value.value

    def load(self, code: bytes) -> int:
        """See `Driver`."""
        module = ctypes.c_void_p()
        load = self._library.cuModuleLoadData
        found = load(ctypes.byref(module), code)
        if found in _NO_CONTEXT:
            self._enter()
            found = load(ctypes.byref(module), code)
        self._check(found)
        return module.value or 0

    def function(self, module: int, name: str, shared: int) -> int:
        """See `Driver`."""
        found, own = ctypes.c_void_p(), ctypes.c_void_p(module)
        get = self._library.cuModuleGetFunction
        self._check(get(ctypes.byref(found), own, name.encode()))
        if shared > _PLAIN_SHARED:
            self._check(self._library.cuFuncSetCacheConfig(found, _PREFER_SHARED))
            allow, what = self._library.cuFuncSetAttribute, _FUNCTION_MAX_DYNAMIC_SHARED
            self._check(allow(found, what, shared))
        return found.value or 0

    def launch(
        self,
        function: int,
        grid: tuple[int, ...],
        threads: int,
        shared: int,
        stream: int,
        parameters: int,
    ) -> None:
        """See `Driver`."""
        sizes = (*grid, *_ONES[len(grid) :], threads, 1, 1, shared)
        code = self._launch(function, *sizes, stream, parameters, None)
        if code in _NO_CONTEXT:
            self._enter()
            code = self._launch(function, *sizes, stream, parameters, None)
        if code:
            self._check(code)

    def encode(
        self,
        tile: Tile,
        element_size: int,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
    ) -> bytes:
        """See `Driver`: cuTensorMapEncodeTiled, whose axes begin with the innermost."""
        rank = len(tile.block)
        store = (ctypes.c_char * 192)()
        start = ctypes.addressof(store) + -ctypes.addressof(store) % 64
        wide, narrow = ctypes.c_uint64 * rank, ctypes.c_uint32 * rank
        jumps = [stride * element_size for stride in strides[:-1]]
        code = self._library.cuTensorMapEncodeTiled(
            ctypes.c_void_p(start),
            tile.element_type,
            rank,
            ctypes.c_void_p(address),
            wide(*reversed(shape)),
            wide(*reversed(jumps)),
            narrow(*reversed(tile.block)),
            narrow(*[1] * rank),
            0,
            tile.swizzle,
            _L2_128_BYTES,
            0,
        )
        self._check(code)
        return ctypes.string_at(start, 128)

    def _enter(self) -> None:
        """Take torch's context in a thread that has called nothing of CUDA yet."""
        context = ctypes.c_void_p()
        retain = self._library.cuDevicePrimaryCtxRetain
        self._check(retain(ctypes.byref(context), self.device()))
        self._check(self._library.cuCtxSetCurrent(context))

    def _check(self, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            said = (text.value or b"unknown").decode(errors="replace")
            raise DriverError(f"the CUDA driver says: {said} ({code})")


class Hip:
    """AMD's HIP runtime, which is its driver API too."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        handle, number = ctypes.c_void_p, ctypes.c_uint
        self._launch = library.hipModuleLaunchKernel
        self._launch.argtypes = [handle, *[number] * 7, *[handle] * 3]
        library.hipGetErrorString.restype = ctypes.c_char_p

    def device(self) -> int:
        """See `Driver`."""
        return torch.cuda.current_device()

    def stream(self, device: int) -> int:
        """See `Driver`."""
        return int(_RAW_STREAM(device))

    def architecture(self, device: int) -> str:
        """See `Driver`."""
        name = torch.cuda.get_device_properties(device).gcnArchName
        return str(name).split(":")[0]

    def most_shared(self, device: int) -> int:
        """See `Driver`."""
        return int(torch.cuda.get_device_properties(device).shared_memory_per_block)

    def load(self, code: bytes) -> int:
        """See `Driver`."""
        module = ctypes.c_void_p()
        self._check(self._library.hipModuleLoadData(ctypes.byref(module), code))
        return module.value or 0

    def function(self, module: int, name: str, shared: int) -> int:
        """See `Driver`."""
        found, own = ctypes.c_void_p(), ctypes.c_void_p(module)
        get = self._library.hipModuleGetFunction
        self._check(get(ctypes.byref(found), own, name.encode()))
        return found.value or 0

    def launch(
        self,
        function: int,
        grid: tuple[int, ...],
        threads: int,
        shared: int,
        stream: int,
        parameters: int,
    ) -> None:
        """See `Driver`."""
        sizes = (*grid, *_ONES[len(grid) :], threads, 1, 1, shared)
        if code := self._launch(function, *sizes, stream, parameters, None):
            self._check(code)

    def encode(
        self,
        tile: Tile,
        element_size: int,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
    ) -> bytes:
        """AMD has no tensor maps, and no kernel for it takes one."""
        raise DriverError("this GPU has no tensor maps")

    def _check(self, code: int) -> None:
        if code:
            said = (self._library.hipGetErrorString(code) or b"").decode(
                errors="replace"
            )
            raise DriverError(f"the HIP driver says: {said} ({code})")
