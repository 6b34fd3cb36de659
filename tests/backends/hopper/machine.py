"""The kernel for Hopper on threads: what waits for what, without a GPU.

In: the text of a module with a `hopper_kernel` and the arguments of a launch. Out: what it stores.
Loads, products and stores take effect late or are looked at twice, so that a buffer that
is written or read too early gives NaN or an error; a wait that nothing ends is an error.
Not its job: the layouts of tiles, and what the compiler makes of the text.
"""

from __future__ import annotations

import ast
import re
import runpy
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

PATIENCE = 20.0
"""Seconds after which a wait counts as one that nothing ends."""

PAUSE = 0.0
"""Seconds that a product takes, beside what computing it takes."""

_HARDWARE = threading.Lock()
_CHANGED = threading.Condition(_HARDWARE)
_OWN = threading.local()


class Stuck(AssertionError):
    """A wait that nothing ends."""


class Beside(AssertionError):
    """Another group of warps failed."""


def _await(is_over: Callable[[], bool], what: str) -> None:
    """Wait under the lock; the hardware's state changes under it alone."""
    if not _CHANGED.wait_for(lambda: is_over() or _OWN.block.failed, PATIENCE):
        _OWN.block.failed = True
        _CHANGED.notify_all()
        raise Stuck(f"waits for ever for {what}")
    if _OWN.block.failed:
        raise Beside("another group failed")


@dataclass(slots=True)
class Barrier:
    """An mbarrier: a phase ends when all have arrived and all bytes have come."""

    name: str
    count: int = 0
    missing: int = 0
    bytes: int = 0
    phase: int = 0

    def arrive(self, n_bytes: int = 0) -> None:
        """One arrival, which may expect bytes."""
        with _HARDWARE:
            assert self.missing > 0, f"{self.name}: more arrivals than a phase has"
            self.missing -= 1
            self.bytes += n_bytes
            self._turn()

    def complete(self, n_bytes: int) -> None:
        """Bytes that a load brought."""
        with _HARDWARE:
            self.bytes -= n_bytes
            self._turn()

    def _turn(self) -> None:
        if self.missing == 0 and self.bytes == 0:
            self.phase, self.missing = self.phase + 1, self.count
            _CHANGED.notify_all()

    def wait(self, parity: int) -> None:
        """Until the phase of that parity is over."""
        with _HARDWARE:
            _await(lambda: self.phase & 1 != parity, f"{self.name}, parity {parity}")


@dataclass(slots=True)
class Shared:
    """A view of shared memory."""

    held: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.held.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.held.dtype

    def index(self, at: int) -> Shared:
        assert 0 <= int(at) < len(self.held)
        return Shared(self.held[int(at)])

    def reshape(self, shape: list[int]) -> Shared:
        return Shared(self.held.view(shape))

    def permute(self, axes: list[int]) -> Shared:
        return Shared(self.held.permute(axes))

    def store(self, tile: Tensor) -> None:
        assert not _OWN.stores, "a buffer is written while it is stored"
        self.held.copy_(tile)


@dataclass(slots=True)
class Barriers:
    """What `filled` and `freed` are."""

    held: list[Barrier]

    def index(self, at: int) -> Barrier:
        return self.held[int(at)]


@dataclass(slots=True)
class Product:
    """A product in flight: it reads its buffers when started and when waited for."""

    left: Any
    right: Shared
    acc: Tensor | None
    first: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.value()

    def value(self) -> Tensor:
        left = self.left.held if isinstance(self.left, Shared) else self.left
        found = left.float() @ self.right.held.float()
        return found if self.acc is None else self.acc + found


@dataclass(slots=True)
class Copy:
    """A store by TMA that was started: it reads its buffer when waited for."""

    source: Tensor
    first: Tensor
    target: Tensor

    def end(self) -> None:
        assert torch.equal(self.source, self.first), "changed while it was stored"
        self.target.copy_(self.source[: len(self.target)])


@dataclass(slots=True)
class Source:
    """What a descriptor describes: [B, H, N, D] in tiles of `rows`."""

    tensor: Tensor
    rows: int
    layout: None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def tile(self, at: Sequence[int]) -> Tensor:
        """A tile, zeros where there are no rows."""
        batch, head, first, _ = (int(x) for x in at)
        n = self.tensor.shape[2]
        found = torch.zeros(self.rows, self.tensor.shape[3], dtype=self.dtype)
        low, high = max(first, 0), min(first + self.rows, n)
        if low < high:
            found[low - first : high - first] = self.tensor[batch, head, low:high]
        return found


@dataclass(slots=True)
class Pointer:
    """An address in a tensor, or a tile of them."""

    tensor: Tensor
    at: Any = 0

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.tensor, self.at + more)


@dataclass(slots=True)
class Block:
    """One program, and what its groups of warps share."""

    program: int
    programs: int
    failed: bool = False
    arrived: dict[int, int] = field(default_factory=dict)
    barriers: list[Barrier] = field(default_factory=list)


def run(
    text: str, arguments: Sequence[Any], constants: dict[str, Any], programs: int
) -> None:
    """Every program of a launch, one after the other. Raises `AssertionError`.

    Sources and pointers are among the arguments, and what is stored lies in their tensors.
    """
    names = names_of(text)
    for program in range(programs):
        block = Block(program, programs)
        enter(block)
        names["hopper_kernel"](*arguments, **constants)
        for barrier in block.barriers:
            assert barrier.bytes == 0, f"{barrier.name}: bytes that nobody brought"
        unmet = {at for at, count in block.arrived.items() if count % 256}
        assert not unmet, f"arrivals at the barriers {unmet} that nobody awaits"


def names_of(text: str) -> dict[str, Any]:
    """The functions of a module that run on a device, by name."""
    # A layout is known to the compiler alone.
    tree = ast.parse(re.sub(r"\w+\.type\.layout", "None", text))
    kept = [
        ast.unparse(item)
        for item in tree.body
        if isinstance(item, ast.FunctionDef)
        and any("jit" in ast.unparse(mark) for mark in item.decorator_list)
        and item.name != "marked"
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.py")
        path.write_text("\n".join(["from __future__ import annotations", *kept]))
        return runpy.run_path(str(path), _names())


def enter(block: Block) -> None:
    """What this thread does from now on is of that program."""
    _OWN.block, _OWN.stores = block, []


def _specialise(groups: Sequence[tuple[Callable[..., None], Any]], *_: Any) -> None:
    """Each group of warps on a thread of its own."""
    block = _OWN.block

    def work(function: Callable[..., None], given: Sequence[Any]) -> None:
        enter(block)
        function(*given)
        assert not _OWN.stores, "ends before what it stores is read"

    def look(done: Future[None]) -> None:
        if done.exception() is not None:
            with _HARDWARE:
                block.failed = True
                _CHANGED.notify_all()

    with ThreadPoolExecutor(len(groups)) as pool:
        futures = [pool.submit(work, *group) for group in groups]
        for future in futures:
            future.add_done_callback(look)
    errors = [error for future in futures if (error := future.exception())]
    causes = [error for error in errors if not isinstance(error, Beside)]
    if errors:
        raise (causes or errors)[0]


def _allocate(dtype: Any, shape: list[int], _: object) -> Shared | Barriers:
    if dtype is not torch.int64:
        return Shared(torch.full(shape, torch.nan, dtype=dtype))
    held = _OWN.block.barriers
    first = len(held)
    held += [Barrier(f"barrier {first + at}") for at in range(shape[0])]
    return Barriers(held[first:])


def _assemble(text: str, *_: object, **__: object) -> None:
    """A named barrier of the hardware: 128 threads of a group arrive, or wait as well."""
    found = re.match(r"bar\.(sync|arrive) (\d+), 256", text)
    assert found is not None, text
    arrived, name = _OWN.block.arrived, int(found[2])
    with _HARDWARE:
        arrived[name] = arrived.get(name, 0) + 128
        wanted = -(-arrived[name] // 256) * 256
        _CHANGED.notify_all()
        if found[1] == "sync":
            _await(lambda: arrived[name] >= wanted, f"named barrier {name}")


def _init(barrier: Barrier, count: int) -> None:
    barrier.count = barrier.missing = count


def _wait(barrier: Barrier, phase: int, pred: Any = True) -> None:
    if pred:
        barrier.wait(int(phase))


def _arrive(barrier: Barrier, pred: Any = True) -> None:
    if pred:
        barrier.arrive()


def _load_tile(
    source: Source, at: Sequence[int], barrier: Barrier, buffer: Shared
) -> None:
    tile = source.tile(at).view(buffer.shape)
    buffer.held.fill_(torch.nan)
    threading.Event().wait(0)  # lets others run
    buffer.held.copy_(tile)
    barrier.complete(tile.numel() * 2)


def _store_tile(source: Source, at: Sequence[int], buffer: Shared) -> None:
    batch, head, first, _ = (int(x) for x in at)
    target = source.tensor[batch, head, first : first + source.rows]
    assert first >= 0 and len(target) == source.rows
    held = buffer.held.view(source.rows, -1)
    _OWN.stores.append(Copy(held, held.clone(), target))


def _end_stores(_: int) -> None:
    for copy in _OWN.stores:
        copy.end()
    _OWN.stores.clear()


def _multiply(
    left: Any, right: Shared, acc: Tensor, use_acc: bool = True, is_async: bool = False
) -> Product:
    assert is_async
    return Product(left, right, acc if use_acc else None)


def _finish(_: int, products: list[Product]) -> Tensor:
    (product,) = products
    threading.Event().wait(PAUSE)
    value, first = product.value(), product.first
    is_same = torch.equal(value.nan_to_num(9.0), first.nan_to_num(9.0))
    return value if is_same else torch.full_like(value, torch.nan)


def _load(pointer: Pointer, mask: Any = True, other: Any = 0) -> Tensor:
    return pointer.tensor[int(pointer.at)] if mask else torch.tensor(other)


def _store(pointer: Pointer, tile: Tensor, mask: Tensor) -> None:
    keep = mask.broadcast_to(tile.shape)
    at = pointer.at.broadcast_to(tile.shape)[keep]
    pointer.tensor.view(-1)[at.long()] = tile[keep]


def _number(value: Any) -> Any:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _jit(function: Any = None, **_: Any) -> Any:
    return function if function is not None else _jit


def _names() -> dict[str, Any]:
    """What a module imports, as far as the kernel uses it."""

    def layout(*_: Any, **__: Any) -> None:
        return None

    gl = SimpleNamespace(
        constexpr=object,
        int32=torch.int32,
        int64=torch.int64,
        float32=torch.float32,
        arange=lambda low, high, layout: torch.arange(low, high, dtype=torch.int32),
        full=lambda shape, value, dtype, layout: torch.full(shape, value, dtype=dtype),
        max=lambda x, axis: x.amax(axis),
        sum=lambda x, axis: x.sum(axis),
        exp2=torch.exp2,
        log2=torch.log2,
        convert_layout=lambda x, _: x,
        program_id=lambda _: _number(_OWN.block.program),
        num_programs=lambda _: _number(_OWN.block.programs),
        static_range=range,
        SliceLayout=layout,
        DotOperandLayout=layout,
        NVMMADistributedLayout=layout,
        inline_asm_elementwise=_assemble,
        allocate_shared_memory=_allocate,
        warp_specialize=_specialise,
    )
    tl = SimpleNamespace(
        int32=torch.int32,
        int64=torch.int64,
        where=lambda keep, one, other: torch.where(
            _number(keep), _number(one), _number(other)
        ),
        minimum=lambda one, other: torch.minimum(_number(one), _number(other)),
        maximum=lambda one, other: torch.maximum(_number(one), _number(other)),
        load=_load,
    )
    gl.store = _store
    return {
        "gluon": SimpleNamespace(jit=_jit),
        "triton": SimpleNamespace(jit=_jit),
        "gl": gl,
        "tl": tl,
        "mbarrier": SimpleNamespace(
            init=_init,
            expect=lambda barrier, n_bytes: barrier.arrive(n_bytes),
            wait=_wait,
            arrive=_arrive,
            MBarrierLayout=layout,
        ),
        "tma": SimpleNamespace(
            async_copy_global_to_shared=_load_tile,
            async_copy_shared_to_global=_store_tile,
            store_wait=_end_stores,
        ),
        "fence_async_shared": lambda: None,
        "warpgroup_mma": _multiply,
        "warpgroup_mma_wait": _finish,
        "marked": lambda lse, _: lse,
    }
