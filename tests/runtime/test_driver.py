"""The CUDA driver's functions, called through ctypes: a stub notes every byte."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patternc.runtime.attention import PackagedAttention
from patternc.runtime.driver import Cuda, DriverError
from patternc.runtime.host import EXACT_TILES
from patternc.runtime.layout import slots_of
from patternc.runtime.manifest import Tile
from patternc.runtime.packing import Packer
from tests.runtime.packages import DATA, EVERYTHING, PROGRAMS, TRAINED, quick_package
from tests.runtime.test_packing import values_for

COMPILER = shutil.which("cc")

_ARRAY = (ctypes.c_void_p * 1)(0)
"""The arguments of a kernel that has none."""

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")


class Stub(Cuda):
    """The driver of the tests: torch's part of it is answered here."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self.library = library
        library.stub_noted.restype = ctypes.c_ulong
        library.stub_loaded.restype = ctypes.c_char_p
        library.stub_attribute.restype = ctypes.POINTER(ctypes.c_int)

    def device(self) -> int:
        return 0

    def stream(self, device: int) -> int:
        return 0x7F0000000001

    def architecture(self, device: int) -> str:
        return "sm_90"

    def expect(self, sizes: list[int]) -> None:
        """How long the arguments of the next launch are."""
        array = (ctypes.c_uint * len(sizes))(*sizes)
        self.library.stub_expect(len(sizes), array)

    def noted(self) -> tuple[bytes, list[int]]:
        """The arguments of the last launch, and its numbers."""
        content = ctypes.POINTER(ctypes.c_ubyte)()
        numbers = ctypes.POINTER(ctypes.c_uint64)()
        count = self.library.stub_noted(ctypes.byref(content), ctypes.byref(numbers))
        return bytes(content[:count]), numbers[:11]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Stub:
    """A driver that launches nothing."""
    path = tmp_path_factory.mktemp("stub") / "libcuda.so"
    source = Path(__file__).with_name("stub.c")
    assert COMPILER is not None
    command = [COMPILER, "-shared", "-fPIC", "-O1", str(source), "-o", str(path)]
    subprocess.run(command, check=True)
    return Stub(ctypes.CDLL(str(path)))


@pytest.mark.parametrize("name", ["causal", "ordered", "vertical_slash", "shares"])
def test_the_driver_gets_every_byte(name: str, stub: Stub) -> None:
    wanted = TRAINED if name in DATA else EVERYTHING
    variants = quick_package(name, wanted).manifest.variants
    for variant in {x.arguments: x for x in variants}.values():
        slots, packer = slots_of(variant.arguments), Packer(variant, stub.encode)
        stub.expect([slot.size for slot in slots])
        values = values_for(variant)
        buffer = packer.pack(values)
        stub.launch(0xFEEDFACECAFE, (3, 7), 256, 65536, stub.stream(0), buffer.address)
        found, numbers = stub.noted()
        whole = buffer.content(slots[-1].offset + slots[-1].size)
        pieces = [whole[x.offset : x.offset + x.size] for x in slots]
        assert found == b"".join(pieces)
        stream = stub.stream(0)
        assert numbers == [0xFEEDFACECAFE, 3, 7, 1, 256, 1, 1, 65536, stream, 0, 0]


def test_a_tensor_map(stub: Stub) -> None:
    tile = Tile((1, 1, 64, 128), 3, 9)
    shape, strides = (2, 3, 50, 100), (99_999, 8888, 777, 1)
    found = stub.encode(tile, 2, 0x123456789ABC, shape, strides)
    assert len(found) == 128
    assert found[:3] == bytes([9, 4, 3])
    assert int.from_bytes(found[8:16], "little") == 0x123456789ABC
    assert _integers(found[16:32], 4) == [100, 50, 3, 2]  # innermost first
    assert _integers(found[40:56], 4) == [128, 64, 1, 1]
    assert _integers(found[64:88], 8) == [2 * 777, 2 * 8888, 2 * 99_999]


def _integers(content: bytes, size: int) -> list[int]:
    parts = range(0, len(content), size)
    return [int.from_bytes(content[at : at + size], "little") for at in parts]


def test_loading(stub: Stub) -> None:
    module = stub.load(b"code")
    assert stub.library.stub_loaded() == b"code"
    assert stub.function(module, "entry", 1024) == 0xFEEDFACECAFE
    assert stub.library.stub_attribute()[:2] == [0, 0]
    stub.function(module, "entry", 90_000)
    assert stub.library.stub_attribute()[:2] == [8, 90_000]
    assert stub.most_shared(0) == 232_448
    with pytest.raises(DriverError, match=r"invalid image \(200\)"):
        stub.load(b"broken")
    with pytest.raises(DriverError, match=r"other \(500\)"):
        stub.function(module, "another", 0)


def test_a_thread_without_a_context_takes_that_of_torch(stub: Stub) -> None:
    stub.library.stub_forget_context()
    assert stub.load(b"code")
    stub.library.stub_forget_context()
    stub.expect([])
    stub.launch(1, (5,), 32, 0, 0, ctypes.addressof(_ARRAY))
    assert stub.noted()[1][1] == 5


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_whole_call(name: str, stub: Stub) -> None:
    package = quick_package(name)
    facts = package.manifest.facts
    own = tuple(replace(x, entry="entry") for x in package.manifest.variants)
    renamed = replace(package, manifest=replace(package.manifest, variants=own))
    attn = PackagedAttention(renamed, stub)
    attn._ready().INTERPRETED = True  # tensors of the CPU, which nothing reads
    length = facts.layout_size or 100
    q = torch.empty(2, facts.heads, length, 64, dtype=torch.float16)
    k = torch.empty(2, facts.kv_heads, length, 64, dtype=torch.float16)
    stub.expect([])
    assert attn(q, k, k).shape == q.shape
    _, numbers = stub.noted()
    tiles = -(-length // facts.block_q)
    if facts.hides:  # the second launch, whose programs look after many tiles
        tiles = -(-tiles // EXACT_TILES)
    assert numbers[1] == 2 * facts.heads * tiles
