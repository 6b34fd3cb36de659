"""C files of test packages, compiled and called through ctypes beside the runtime.

In: the name of a program of `tests.runtime.packages`. Out: its C functions, and the
runtime's attention, both over one stub of the driver that notes every launch.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patternc.backends.c.emit import emit_c
from patternc.backends.c.tables import DTYPES
from patternc.backends.triton.build import Wanted
from patternc.backends.triton.recording import stand_in
from patternc.runtime.attention import PackagedAttention
from patternc.runtime.choice import choose
from patternc.runtime.driver import Cuda
from patternc.runtime.launch import Kernel
from patternc.runtime.layout import slots_of
from patternc.runtime.manifest import Variant
from patternc.runtime.package import Package
from tests.runtime.packages import EVERYTHING, kernel_of, quick_package

COMPILER = shutil.which("cc")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror")
STREAM = 0x7F0000000001
KEY = 40
MULTIPROCESSORS, MAJOR, MINOR, SHARED, DEVICE, FAILING, CODE = range(7)
"""Settings of the stub."""

WORDS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
DIMS = (64, 40, 128)  # the kernel for Hopper is for 128 columns alone
BUILT = replace(EVERYTHING, head_dims=DIMS)
FORWARD_ONLY = replace(BUILT, backward=False, forms=())


def wanted_of(name: str) -> Wanted:
    """What the C form can be asked for: no gradients of ordered heads in groups."""
    return FORWARD_ONLY if name == "ordered" else BUILT


class TensorStruct(ctypes.Structure):
    """`x_tensor`."""

    _fields_ = (("data", ctypes.c_void_p), ("strides", ctypes.c_int64 * 4))


class GradientsStruct(ctypes.Structure):
    """`x_gradients`."""

    _fields_ = (
        ("out", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
        ("d_out", TensorStruct),
        ("d_lse", ctypes.c_void_p),
        ("dq", ctypes.c_void_p),
        ("dk", ctypes.c_void_p),
        ("dv", ctypes.c_void_p),
    )


def call_struct(params: Mapping[str, int | None]) -> type[ctypes.Structure]:
    """`x_call` of a program with these run-time parameters."""
    own = [(f"p_{name}", ctypes.c_int64) for name in params]

    class Call(ctypes.Structure):
        _fields_ = (
            ("dtype", ctypes.c_int),
            ("batch", ctypes.c_int64),
            ("n_q", ctypes.c_int64),
            ("n_k", ctypes.c_int64),
            ("head_dim", ctypes.c_int64),
            ("q", TensorStruct),
            ("k", TensorStruct),
            ("v", TensorStruct),
            ("out", ctypes.c_void_p),
            ("lse", ctypes.c_void_p),
            ("scale", ctypes.c_double),
            ("q_offset", ctypes.c_int64),
            *own,
            ("lengths", ctypes.c_void_p),
            ("cu_seqlens", ctypes.c_void_p),
            ("sequences", ctypes.c_int64),
            ("max_seqlen", ctypes.c_int64),
            ("workspace", ctypes.c_void_p),
            ("workspace_bytes", ctypes.c_size_t),
            ("stream", ctypes.c_void_p),
        )

    return Call


class LaunchStruct(ctypes.Structure):
    """What the stub notes."""

    _fields_ = (
        ("key", ctypes.c_char * KEY),
        ("numbers", ctypes.c_uint64 * 8),
        ("bytes", ctypes.c_uint64),
        ("content", ctypes.c_ubyte * 2048),
    )


@dataclass(frozen=True, slots=True)
class Noted:
    """One launch: the kernel's number in the manifest, sizes, the bytes of each slot."""

    variant: int
    numbers: tuple[int, ...]
    slots: tuple[bytes, ...]


class Stub(Cuda):
    """The driver of the runtime, over the stub that the C files call too."""

    def __init__(self, path: Path, package: Package) -> None:
        library = ctypes.CDLL(str(path))
        super().__init__(library)
        self.library, self.target = library, "sm_90"
        self.keys: dict[bytes, int] = {}
        library.stub_alive.restype = ctypes.c_int64
        library.stub_set.argtypes = [ctypes.c_uint, ctypes.c_int64]
        for at, variant in enumerate(package.manifest.variants):
            sizes = [slot.size for slot in slots_of(variant.arguments)]
            for blob in (variant.code, variant.ptx):
                if blob is not None:
                    self._know(at, package.blob(blob), sizes)

    def _know(self, at: int, image: bytes, sizes: list[int]) -> None:
        key = (image + bytes(KEY))[:KEY]
        self.keys[key] = at
        array = (ctypes.c_uint * len(sizes))(*sizes)
        self.library.stub_expect(key, len(sizes), array)

    def set(self, which: int, value: int) -> None:
        """A setting of the stub."""
        self.library.stub_set(which, value)

    def alive(self) -> list[int]:
        """Modules, allocations, primary contexts, pushed contexts."""
        return [self.library.stub_alive(which) for which in range(4)]

    def device(self) -> int:
        return 0

    def stream(self, device: int) -> int:
        return STREAM

    def architecture(self, device: int) -> str:
        return self.target

    def load(self, code: bytes) -> int:
        return super().load(code + bytes(KEY))

    def noted(self, variants: tuple[Variant, ...]) -> list[Noted]:
        """Every launch since this was last asked."""
        array = ctypes.POINTER(LaunchStruct)()
        count = self.library.stub_launches(ctypes.byref(array))
        found = []
        for at in range(count):
            note = array[at]
            raw = bytes(note)
            number = self.keys[raw[:KEY]]
            content, slots = bytes(note.content)[: note.bytes], []
            for slot in slots_of(variants[number].arguments):
                slots.append(content[: slot.size])
                content = content[slot.size :]
            assert not content
            found.append(Noted(number, tuple(note.numbers), tuple(slots)))
        return found


@dataclass(frozen=True, slots=True)
class Both:
    """A program in C and in the runtime."""

    package: Package
    stub: Stub
    attention: PackagedAttention
    host: Any
    access_of: Any
    library: ctypes.CDLL
    call_type: Any
    prefix: str

    def function(self, name: str) -> Any:
        """A C function by the end of its name."""
        return getattr(self.library, f"{self.prefix}_{name}")

    def on(self, target: str, multiprocessors: int = 1) -> None:
        """Both see such a device from now on."""
        self.stub.target = target
        number = int(target.removeprefix("sm_"))
        self.stub.set(MAJOR, number // 10)
        self.stub.set(MINOR, number % 10)
        self.stub.set(MULTIPROCESSORS, multiprocessors)
        variants, code = self.package.manifest.variants, self.attention._code
        ptx = {x.target for x in variants if x.ptx is not None}
        choice = choose({x.target for x in variants}, ptx, target)
        assert code is not None
        code._choices[0] = choice  # without the warning about PTX
        for kernel in vars(self.host).values():
            if isinstance(kernel, Kernel):
                kernel._found.clear()
        stand_in(self.host, self.access_of, choice.target, is_idle=False)
        self.host.is_hopper = lambda _: choice.target == "sm_90"
        self.host.multiprocessors = lambda _: multiprocessors

    def handle(self) -> Any:
        """A handle; `x_destroy` ends it."""
        handle = ctypes.c_void_p()
        assert self.function("create")(ctypes.byref(handle), 0, None) == 0
        return handle

    def call(self, q: Tensor, k: Tensor, v: Tensor, given: dict[str, Any]) -> Any:
        """The C form of a call of the runtime."""
        call = self.call_type()
        self.function("call_init")(ctypes.byref(call))
        call.dtype = WORDS[q.dtype]
        call.batch, _, call.n_q, call.head_dim = q.shape
        call.n_k = k.shape[2]
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            setattr(call, name, struct_of(tensor))
        call.stream = STREAM
        if given.get("scale") is not None:
            call.scale = given["scale"]
        if given.get("q_offset") is not None:
            call.q_offset = given["q_offset"]
        if given.get("lengths") is not None:
            call.lengths = given["lengths"].data_ptr()
        if given.get("cu_seqlens") is not None:
            call.cu_seqlens = given["cu_seqlens"].data_ptr()
            call.sequences = len(given["cu_seqlens"]) - 1
            call.max_seqlen = given["max_seqlen"]
        for name in self.package.manifest.facts.params:
            if name in given:
                setattr(call, f"p_{name}", given[name])
        return call


def struct_of(tensor: Tensor) -> TensorStruct:
    """The C form of a tensor."""
    strides = (ctypes.c_int64 * 4)(*tensor.stride())
    return TensorStruct(tensor.data_ptr(), strides)


@lru_cache
def stub_path(folder: Path) -> Path:
    """The stub, compiled."""
    path = folder / "libstub.so"
    source = Path(__file__).with_name("stub.c")
    compiled([str(source)], path, "-shared", "-fPIC")
    return path


def compiled(sources: list[str], path: Path, *options: str) -> None:
    """Compile without a single warning."""
    assert COMPILER is not None
    command = [COMPILER, *STRICT, *options, *sources, "-o", str(path), "-lm", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def written(name: str, folder: Path) -> Path:
    """The folder of a program's C files."""
    own = folder / name
    own.mkdir(exist_ok=True)
    package = quick_package(name, wanted_of(name))
    for file, text in emit_c(package, kernel_of(name).attention).items():
        (own / file).write_text(text)
    return own


@lru_cache
def both(name: str, folder: Path) -> Both:
    """A program in both forms."""
    package = quick_package(name, wanted_of(name))
    prefix, own = package.manifest.facts.name, written(name, folder)
    driver, path = stub_path(folder), own / "lib.so"
    define = f'-DPATTERNC_CUDA_DRIVER="{driver}"'
    compiled([str(own / f"{prefix}.c")], path, "-shared", "-fPIC", define)
    library = ctypes.CDLL(str(path))
    getattr(library, f"{prefix}_status_name").restype = ctypes.c_char_p
    getattr(library, f"{prefix}_target").restype = ctypes.c_char_p
    getattr(library, f"{prefix}_target").argtypes = [ctypes.c_void_p]
    getattr(library, f"{prefix}_destroy").argtypes = [ctypes.c_void_p]
    stub = Stub(driver, package)
    attention = PackagedAttention(package, stub)
    host = attention._ready()
    call_type = call_struct(package.manifest.facts.params)
    assert list(DTYPES) == ["bf16", "fp16", "fp32"]
    return Both(
        package, stub, attention, host, host.access_of, library, call_type, prefix
    )
