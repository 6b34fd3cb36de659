"""What a generated module would launch, without a GPU.

In: a generated module's file, a kind of call, a target. Out: every launch that its own
host code makes for that call: kernel, arguments, options. So what is compiled ahead of
time is what would be compiled at run time. Not its job: compiling (`build`).

The tensors are on PyTorch's meta device: they have sizes, strides and no memory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor

from patternc.backends.triton.offline import compiler_of
from patternc.plan.kernel import Kernel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_LONG = 1 << 26
"""Keys of a call whose few query tiles several programs share."""

_LONG_SEQUENCE = 1 << 20
"""Rows of sequences that the kernel for Hopper may ask for."""

_FEW_PROGRAMS = 1024
"""More of them leave no device idle."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch, as the host code asks for it; `kernel` is the module's function."""

    kernel: str
    programs: int
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of call: numbers of queries and keys, whether the device is idle, and
    the form of sequences ("none", "padded" or "packed").
    """

    n_q: int
    n_k: int
    is_idle: bool = False
    form: str = "none"
    backward: bool = False


def calls_of(
    kernel: Kernel,
    backward: bool,
    forms: Iterable[str],
    has_gradient_forms: bool,
    decode: bool,
) -> tuple[Call, ...]:
    """The kinds of calls that a package of a program serves.

    With `decode` those of few query tiles too, which leave a device idle. A layout has
    one length, and its calls are whole.
    """
    block = kernel.schedule.block_q
    layout = kernel.attention.layout
    if layout is not None:
        size = layout.size
        programs = kernel.attention.heads * -(-size // block)
        is_idle = decode and programs < _FEW_PROGRAMS
        idle = (Call(size, size, is_idle=True),) if is_idle else ()
        return (Call(size, size, backward=backward), *idle)
    # Of few steps, which are not shared, and too few tiles for the kernel for Hopper.
    few = Call(2 * block, 2 * block, is_idle=True)
    found = [Call(8 * block, 8 * block, backward=backward), few]
    found.append(Call(8 * block, _LONG))  # which the kernel for Hopper may ask for
    if decode:
        # One query for each head, whose rows are packed, and more than one tile.
        found.append(Call(1, _LONG, is_idle=True))
        found.append(Call(2 * block, _LONG, is_idle=True))
    for form in forms:
        gradients = backward and has_gradient_forms
        found.append(Call(8 * block, 8 * block, form=form, backward=gradients))
        found.append(Call(8 * block, 8 * block, is_idle=True, form=form))
        found.append(Call(_LONG_SEQUENCE, _LONG_SEQUENCE, form=form))
    return tuple(found)


class Recorder:
    """Stands for a kernel: a launch is noted in `found`, nothing runs."""

    def __init__(self, name: str, found: list[Launch]) -> None:
        self.__name__ = name
        self._found = found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        (programs,) = grid

        def launch(*arguments: Any, **options: Any) -> None:
            own = Launch(self.__name__, programs, arguments, dict(options))
            self._found.append(own)

        return launch


@dataclass(frozen=True, slots=True)
class Recording:
    """A copy of a generated module whose kernels note their launches in `found`."""

    module: Any
    found: list[Launch]
    access_of: Callable[..., str]
    most_steps: Callable[..., int]

    def launches(
        self, call: Call, dtype: str, head_dim: int, target: str
    ) -> tuple[Launch, ...]:
        """The launches of one call on a device of `target`."""
        module = self.module
        stand_in(module, self.access_of, target, is_idle=call.is_idle)
        # How many tiles there are to share may depend on a call's parameters.
        is_shared = call.n_k >= _LONG_SEQUENCE and module.PARAMS
        module.most_steps = (lambda *_: _LONG) if is_shared else self.most_steps
        self.found.clear()
        module.FITTING.clear()  # of another target
        q, k, v = _tensors(module, call, dtype, head_dim)
        given: dict[str, object] = {}
        if call.form == "padded":
            given["lengths"] = torch.empty(2, dtype=torch.int32, device="meta")
        if call.form == "packed":
            given["cu_seqlens"] = torch.empty(3, dtype=torch.int32, device="meta")
            given["max_seqlen"] = call.n_q
        # Every parameter of a program has some value; none changes what is compiled.
        given |= dict.fromkeys(module.PARAMS, 1)
        out, lse = module.attend(q, k, v, **given)
        if call.backward:
            d_out = torch.empty_like(out)
            module.gradients(q, k, v, out, lse, d_out, None, **given)
        return tuple(self.found)


def recording_of(path: Path) -> Recording:
    """Import a generated module for recording. Raises `ImportError`."""
    module: Any = fresh_module(path)
    found: list[Launch] = []
    for name, value in vars(module).copy().items():
        if name.endswith("kernel") and hasattr(value, "params"):
            setattr(module, name, Recorder(name, found))
    if hasattr(module, "tile_lists"):
        build = module.tile_lists
        module.tile_lists = lambda *given: build(*given[:-1], torch.device("cpu"))
    return Recording(module, found, module.access_of, module.most_steps)


def fresh_module(path: Path) -> ModuleType:
    """A copy of a generated module of one's own, not interpreted.

    Raises `ImportError`.
    """
    spec = importlib.util.spec_from_file_location(f"recorded_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = False
        spec.loader.exec_module(module)
    return module


def stand_in(
    module: Any, access_of: Callable[..., str], target: str, *, is_idle: bool
) -> None:
    """What the host code asks a device about, answered for the target.

    `access_of` is the module's own. An idle device has more multiprocessors than any
    call has programs.
    """
    is_nvidia = target.startswith("sm_")
    has_tma = is_nvidia and int(target.removeprefix("sm_")) >= 90

    def access(*tensors: Tensor) -> str:
        found = access_of(*tensors)
        return "aligned" if found == "descriptor" and not has_tma else found

    def precision(q: Tensor) -> str:
        return "tf32x3" if is_nvidia and q.dtype == torch.float32 else "ieee"

    module.access_of, module.precision_of = access, precision
    module.compiler_of = lambda _: compiler_of(target)
    module.check_runs = lambda *_: None
    module.multiprocessors = lambda _: 1 << 20 if is_idle else 1
    module.is_hopper = lambda _: target == "sm_90"


def _tensors(module: Any, call: Call, dtype: str, head_dim: int) -> list[Tensor]:
    batch = 1 if call.form == "packed" else 2
    shapes = (
        (batch, module.HEADS, call.n_q, head_dim),
        (batch, module.KV_HEADS, call.n_k, head_dim),
        (batch, module.KV_HEADS, call.n_k, head_dim),
    )
    return [torch.empty(x, dtype=DTYPES[dtype], device="meta") for x in shapes]
