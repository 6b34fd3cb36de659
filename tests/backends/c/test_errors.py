"""What the C form refuses, by the names of its codes; a refused call launches nothing."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backends.c.libraries import (
    CODE,
    COMPILER,
    DEVICE,
    FAILING,
    SHARED,
    Both,
    GradientsStruct,
    both,
    compiled,
    struct_of,
    written,
)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")

LOAD, LAUNCH, PUSH, ENCODE, ALLOCATE = range(1, 6)


@dataclass
class Case:
    """A right call of a program with one run-time parameter, kept with its tensors."""

    one: Both
    handle: Any
    call: Any
    tensors: list[torch.Tensor]

    def status(self) -> str:
        """The name of what a forward call returns."""
        return self.name(self.one.function("forward")(self.handle, self.pointer))

    def name(self, code: int) -> str:
        """Without the prefix of the program."""
        found: bytes = self.one.function("status_name")(code)
        return found.decode().removeprefix(f"{self.one.prefix.upper()}_")

    @property
    def pointer(self) -> Any:
        return ctypes.byref(self.call)


@pytest.fixture
def case(folder: Path) -> Iterator[Case]:
    one = both("window", folder)
    one.on("sm_90")
    q, k = (torch.empty(1, 2, n, 64, dtype=torch.float16) for n in (100, 130))
    out, memory = torch.empty_like(q), torch.empty(1 << 16, dtype=torch.int8)
    handle, call = one.handle(), one.call(q, k, k, {})
    call.out = out.data_ptr()
    call.workspace, call.workspace_bytes = memory.data_ptr(), memory.numel()
    yield Case(one, handle, call, [q, k, out, memory])
    for which in (FAILING, CODE, DEVICE):
        one.stub.set(which, 0)
    one.stub.noted(one.package.manifest.variants)
    one.function("destroy")(handle)
    assert one.stub.alive()[0] - _modules(one) == one.stub.alive()[3] == 0


def _modules(one: Both) -> int:
    """Those that the runtime has loaded, and keeps."""
    assert one.attention._code is not None
    return len(one.attention._code._loaded)


def _set(name: str, value: object) -> Callable[[Case], None]:
    return lambda case: setattr(case.call, name, value)


def _strides(name: str, *strides: int) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        tensor = getattr(case.call, name)
        tensor.strides = (ctypes.c_int64 * 4)(*strides)

    return change


def _data(name: str, change: Callable[[int], int | None]) -> Callable[[Case], None]:
    def apply(case: Case) -> None:
        tensor = getattr(case.call, name)
        tensor.data = change(tensor.data)

    return apply


WRONG = [
    ("NULL_POINTER", _data("q", lambda _: None)),
    ("NULL_POINTER", _data("k", lambda _: None)),
    ("NULL_POINTER", _data("v", lambda _: None)),
    ("NULL_POINTER", _set("out", None)),
    ("NULL_POINTER", _set("workspace", None)),
    ("UNALIGNED", _data("q", lambda x: x + 2)),
    ("UNALIGNED", _data("v", lambda x: x + 8)),
    ("UNALIGNED", lambda case: setattr(case.call, "out", case.call.out + 2)),
    (
        "UNALIGNED",
        lambda case: setattr(case.call, "workspace", case.call.workspace + 4),
    ),
    ("UNALIGNED", _strides("q", 12_800, 6400, 65, 1)),
    ("BAD_STRIDE", _strides("k", 16_640, 8320, 64, 2)),
    ("BAD_STRIDE", _strides("k", 16_640, 8320, -64, 1)),
    ("BAD_STRIDE", _strides("k", 16_640, 0, 64, 1)),
    ("SMALL_WORKSPACE", _set("workspace_bytes", 3)),
    ("BAD_DTYPE", _set("dtype", 0)),
    ("BAD_DTYPE", _set("dtype", 3)),
    ("BAD_DTYPE", _set("dtype", -1)),
    ("BAD_HEAD_DIM", _set("head_dim", 63)),
    ("BAD_SIZE", _set("batch", -1)),
    ("BAD_SIZE", _set("n_q", -1)),
    ("BAD_SIZE", _set("n_k", 2**30 + 1)),
    ("BAD_SIZE", _set("n_q", 2**62)),
    ("BAD_OFFSET", _set("q_offset", 2**30 + 1)),
    ("BAD_OFFSET", _set("q_offset", 2**30 - 99)),
    ("BAD_OFFSET", _set("q_offset", -(2**40))),
    ("BAD_SCALE", _set("scale", -1.0)),
    ("BAD_SCALE", _set("scale", float("nan"))),
    ("BAD_SCALE", _set("scale", float("inf"))),
    ("BAD_PARAMETER", _set("p_w", 2**30 + 1)),
    ("BAD_PARAMETER", _set("p_w", -(2**63))),
    ("BAD_SEQUENCES", _set("lengths", 16)),  # n_q is not n_k
    ("BAD_SEQUENCES", _set("cu_seqlens", 16)),
    ("TOO_LARGE", _set("batch", 2**30)),
]


@pytest.mark.parametrize(("expected", "change"), WRONG)
def test_wrong_calls(case: Case, expected: str, change: Any) -> None:
    assert case.status() == "OK"
    assert case.one.stub.noted(case.one.package.manifest.variants)
    change(case)
    assert case.status() == expected
    assert not case.one.stub.noted(case.one.package.manifest.variants)


def test_null_instead_of_a_handle_or_a_call(case: Case) -> None:
    size, one = ctypes.c_size_t(), case.one
    for found in (
        one.function("create")(None, 0, None),
        one.function("forward")(None, case.pointer),
        one.function("forward")(case.handle, None),
        one.function("workspace")(case.handle, None, ctypes.byref(size)),
        one.function("workspace")(case.handle, case.pointer, None),
        one.function("backward")(case.handle, case.pointer, None),
        one.function("backward_workspace")(None, case.pointer, ctypes.byref(size)),
    ):
        assert case.name(found) == "NULL_POINTER"
    one.function("destroy")(None)
    one.function("call_init")(None)
    assert one.function("target")(None) == b""


def test_both_kinds_of_sequences(case: Case) -> None:
    case.call.q_offset, case.call.n_q = 0, 130
    case.call.lengths = case.call.cu_seqlens = 16
    assert case.status() == "BAD_SEQUENCES"


@pytest.mark.parametrize("which", [LAUNCH, PUSH, ENCODE])
def test_what_the_driver_says_in_a_call(case: Case, which: int) -> None:
    case.one.stub.set(FAILING, which)
    case.one.stub.set(CODE, 719)
    code = case.one.function("forward")(case.handle, case.pointer)
    assert code == 10_000 + 719
    assert case.name(code) == "DRIVER_ERROR"
    assert case.name(-5) == case.name(9999) == "not a status"


def test_gradients_of_a_wrong_call(case: Case) -> None:
    q, k, *_ = case.tensors
    lse, own = torch.empty(1, 2, 100), case.one.function("backward")

    def right() -> GradientsStruct:
        pointers = q.data_ptr(), k.data_ptr(), k.data_ptr()
        out = q.data_ptr(), lse.data_ptr(), struct_of(q), None
        return GradientsStruct(*out, *pointers)

    def status(gradients: GradientsStruct) -> str:
        return case.name(own(case.handle, case.pointer, ctypes.byref(gradients)))

    assert status(right()) == "OK"
    for field in ("out", "lse", "dq", "dk", "dv"):
        gradients = right()
        setattr(gradients, field, None)
        assert status(gradients) == "NULL_POINTER"
    gradients = right()
    gradients.d_out.data = gradients.d_out.data + 2
    assert status(gradients) == "UNALIGNED"
    case.call.workspace_bytes = 100
    assert status(right()) == "SMALL_WORKSPACE"


def _created(one: Both, device: int = 0, context: int | None = None) -> str:
    """The name of what making a handle returns; nothing stays behind."""
    before, handle = one.stub.alive(), ctypes.c_void_p(1)
    code = one.function("create")(ctypes.byref(handle), device, context)
    if code == 0:
        one.function("destroy")(handle)
    else:
        assert handle.value is None
    assert one.stub.alive() == before
    found: bytes = one.function("status_name")(code)
    return found.decode().removeprefix(f"{one.prefix.upper()}_")


def test_devices_that_are_not_served(case: Case) -> None:
    one = case.one
    assert _created(one) == "OK"
    assert _created(one, 0, 0x77) == "OK"
    assert _created(one, 1) == "DRIVER_ERROR"
    one.stub.set(DEVICE, 3)
    assert _created(one) == "BAD_DEVICE"
    one.stub.set(DEVICE, 0)
    one.stub.set(1, 7)  # sm_70
    assert _created(one) == "NO_CODE"
    one.stub.set(1, 9)
    for which in (LOAD, PUSH):
        one.stub.set(FAILING, which)
        one.stub.set(CODE, 2)
        assert _created(one) == "DRIVER_ERROR"


def test_tile_lists_without_memory(folder: Path) -> None:
    one = both("layout", folder)
    one.on("sm_90")
    one.stub.set(FAILING, ALLOCATE)
    one.stub.set(CODE, 2)
    assert _created(one) == "DRIVER_ERROR"
    one.stub.set(FAILING, 0)
    assert _created(one) == "OK"


def test_a_device_with_little_shared_memory(case: Case) -> None:
    case.one.stub.set(SHARED, 100)
    handle = case.one.handle()
    case.one.stub.set(SHARED, 232_448)
    code = case.one.function("forward")(handle, case.pointer)
    assert case.name(code) == "NO_ROOM"
    case.one.function("destroy")(handle)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("sm_80", b"sm_80"),
        ("sm_86", b"sm_80"),
        ("sm_90", b"sm_90"),
        ("sm_100", b"sm_80 PTX"),
    ],
)
def test_what_runs_is_said(case: Case, target: str, said: bytes) -> None:
    case.one.on(target)
    handle = case.one.handle()
    assert case.one.function("target")(handle) == said
    case.one.function("destroy")(handle)


def test_an_lse_where_there_is_none(folder: Path) -> None:
    # Every program of these tests has an LSE: only a layout's sizes are looked at here.
    one = both("layout", folder)
    one.on("sm_90")
    q = torch.empty(1, 2, 64, 64, dtype=torch.float16)
    handle, call = one.handle(), one.call(q, q, q, {})
    code = one.function("forward")(handle, ctypes.byref(call))
    assert one.function("status_name")(code) == b"PLAIN_LAYOUT_BAD_SIZE"
    one.function("destroy")(handle)


def test_no_driver(folder: Path, tmp_path: Path) -> None:
    own = written("full", folder)
    path, define = tmp_path / "lib.so", '-DPATTERNC_CUDA_DRIVER="no_such_driver.so"'
    compiled([str(own / "everything.c")], path, "-shared", "-fPIC", define)
    library, handle = ctypes.CDLL(str(path)), ctypes.c_void_p(1)
    library.everything_status_name.restype = ctypes.c_char_p
    code = library.everything_create(ctypes.byref(handle), 0, None)
    assert library.everything_status_name(code) == b"EVERYTHING_NO_DRIVER"
    assert handle.value is None


def test_a_driver_that_is_too_old(folder: Path, tmp_path: Path) -> None:
    own, old = written("full", folder), tmp_path / "old.so"
    (tmp_path / "old.c").write_text("int cuInit(unsigned x) { return (int)x; }\n")
    compiled([str(tmp_path / "old.c")], old, "-shared", "-fPIC")
    path, define = tmp_path / "lib.so", f'-DPATTERNC_CUDA_DRIVER="{old}"'
    compiled([str(own / "everything.c")], path, "-shared", "-fPIC", define)
    library, handle = ctypes.CDLL(str(path)), ctypes.c_void_p()
    library.everything_status_name.restype = ctypes.c_char_p
    code = library.everything_create(ctypes.byref(handle), 0, None)
    assert library.everything_status_name(code) == b"EVERYTHING_NO_DRIVER"


def test_one_handle_in_several_threads(case: Case) -> None:
    """Sizes only: the stub's notes are for one thread."""
    expected, found = ctypes.c_size_t(), set[int]()
    own = case.one.function("workspace")
    assert own(case.handle, case.pointer, ctypes.byref(expected)) == 0

    def ask() -> None:
        size = ctypes.c_size_t()
        for _ in range(300):
            own(case.handle, case.pointer, ctypes.byref(size))
            found.add(size.value)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {expected.value}
