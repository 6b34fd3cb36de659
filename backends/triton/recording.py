"""What a generated module would launch, without a GPU.

In: a generated module's file, a kind of call, a target. Out: every launch that its own
host code makes for that call: kernel, arguments, options. So what is compiled ahead of
time is what would be compiled at run time. Not its job: compiling (`build`).

The tensors are on PyTorch's meta device: they have sizes, strides and no memory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor

from patternc.backends.triton.features import features_of
from patternc.backends.triton.offline import compiler_of
from patternc.backends.triton.pairs import all_pair_reads
from patternc.backends.triton.plan_facts import score_reads
from patternc.backends.triton.targets import SHARED_BYTES
from patternc.plan.kernel import Kernel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

TABLES = {"bool": torch.bool, "int": torch.int32, "float": torch.float32}
"""Of what type a package takes inputs; narrower integers are widened."""

_LONG = 1 << 26
"""Keys of a call whose few query tiles several programs share."""

_LONG_SEQUENCE = 1 << 20
"""Rows of sequences that the kernel for Hopper may ask for."""

_PLANNED = 1 << 16
"""Keys of a call whose plan is recorded, for one query, for all, and for 64 keys."""

_PLAN_VALUE = 1 << 12
"""Of a run-time parameter: 1 and this, as it may say how many rows there are."""

_GROUPS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 10_000)
"""Groups of a row that is searched: by one program in blocks of so many, or by several."""

_FEW_PROGRAMS = 1024
"""More of them leave no device idle."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch, as the host code asks for it; `kernel` is the module's function."""

    kernel: str
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of call: numbers of queries and keys, whether the device is idle, and
    the form of sequences ("none", "padded" or "packed"). `plans`: keys are chosen for
    it, and nothing more. `wanted` are inputs whose gradients are asked for, too.
    `trains`: autograd may look at it, which then finishes its rows.
    """

    n_q: int
    n_k: int
    is_idle: bool = False
    form: str = "none"
    backward: bool = False
    plans: bool = False
    wanted: tuple[str, ...] = ()
    trains: bool = False


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
        idle = [Call(size, size, is_idle=True)] if is_idle else []
        whole = [Call(size, size, backward=backward), *idle]
        return _with_data(kernel, whole, backward)
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
    return _with_data(kernel, found, backward)


def _with_data(kernel: Kernel, found: list[Call], trains: bool) -> tuple[Call, ...]:
    """The calls, with gradients of inputs too, and with plans."""
    # Sequences whose rows are finished have no gradients.
    found = [replace(call, trains=trains and call.form == "none") for call in found]
    reads = score_reads(features_of(kernel))
    lines = () if reads is None else tuple(x.table for x in reads.reads)
    pairs = tuple(read.read.table for read in all_pair_reads(kernel))
    # Gradients of rows and columns alone, and of pairs too: the first of each.
    alone = tuple(x for x in lines if x not in pairs)
    wanted = {own[:1] for own in (alone, pairs) if own}
    calls = [call for call in found if call.backward]
    for own in sorted(wanted):
        found = found + [replace(call, wanted=own) for call in calls]
    if kernel.attention.selections:
        sizes = ((1, _PLANNED), (_PLANNED, _PLANNED), (64, 64))
        found = [*found, *(Call(*pair, plans=True) for pair in sizes)]
    return tuple(found)


class Recorder:
    """Stands for a kernel: a launch is noted in `found`, nothing runs."""

    def __init__(self, name: str, found: list[Launch]) -> None:
        self.__name__ = name
        self._found = found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:

        def launch(*arguments: Any, **options: Any) -> None:
            own = Launch(self.__name__, grid, arguments, dict(options))
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
        if call.plans:
            for value in (1, _PLAN_VALUE):
                values = dict.fromkeys(module.PLAN_PARAMS, value)
                module.select(q, k, 1.0, call.n_k - call.n_q, values)
            self._search()
            return tuple(self.found)
        given: dict[str, object] = _inputs(module, call)
        if call.form == "padded":
            given["lengths"] = torch.empty(2, dtype=torch.int32, device="meta")
        if call.form == "packed":
            given["cu_seqlens"] = torch.empty(3, dtype=torch.int32, device="meta")
            given["max_seqlen"] = call.n_q
        # Every parameter of a program has some value; none changes what is compiled.
        given |= dict.fromkeys(module.PARAMS, 1)
        out, lse = module.forward(q, k, v, return_lse=True, **given)
        if call.trains and hasattr(module, "finish"):  # behind the kernels
            out, lse = module.attend(q, k, v, **given)
        if call.backward:
            d_out = torch.empty_like(out)
            wanted = call.wanted
            module.gradients(q, k, v, out, lse, d_out, None, wanted, **given)
        return tuple(self.found)

    def _search(self) -> None:
        """Choices from rows of every number of groups, of the kinds that were noted."""
        module, kinds = self.module, dict[tuple[Any, bool, bool], None]()
        for launch in self.found:
            if launch.kernel == "choose_kernel":
                _, _, _, least, most, *_ = launch.arguments
                kinds[launch.options["HOW"], least is None, most is None] = None
        for how, has_no_least, has_no_most in kinds:
            bounds = (None if has_no_least else 1, None if has_no_most else 1)
            for count in _GROUPS:
                values = torch.empty(1, count, device="meta")
                classes = torch.empty(1, count, dtype=torch.int8, device="meta")
                if how == "count":
                    module.choose_top(values, classes, 1, *bounds)
                else:
                    module.choose_top_p(values, classes, 0.5, how == "keep", *bounds)


def recording_of(path: Path) -> Recording:
    """Import a generated module for recording. Raises `ImportError`."""
    module: Any = fresh_module(path)
    found: list[Launch] = []
    for name, value in vars(module).copy().items():
        if name.endswith("kernel") and hasattr(value, "params"):
            setattr(module, name, Recorder(name, found))
    for kernels in getattr(module, "MAPS", []):
        for name, value in kernels.items():
            kernels[name] = Recorder(value.__name__, found)
    module.WIDE_BLOCKS = 0  # as in a package: see `host`
    module.add_pair_sums = lambda *_: None  # it launches nothing
    if hasattr(module, "runs"):
        module.runs = few_runs(module.runs)
    if vars(module).get("LIST_INPUTS"):
        module.tile_lists = lambda batch, *_: _some_lists(batch, module.HEADS)
        module.reversed_lists = lambda lists, *_: lists
    elif hasattr(module, "tile_lists"):
        build = module.tile_lists
        module.tile_lists = lambda *given: build(*given[:-1], torch.device("cpu"))
    return Recording(module, found, module.access_of, module.most_steps)


def few_runs(runs: Callable[..., list[tuple[int, int]]]) -> Callable[..., object]:
    """The `runs` of a module, but for those between the first and the last one.

    What they launch differs from these by addresses alone.
    """

    def few(*given: Any) -> list[tuple[int, int]]:
        found = runs(*given)
        return found if len(found) < 2 else [found[0], found[-1]]

    return few


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
    module.shared_memory = lambda _: SHARED_BYTES[target]
    if hasattr(module, "STRIPES"):
        module.STRIPES.clear()  # made anew, so that it is recorded
    module.is_hopper = lambda _: target == "sm_90"


def _tensors(module: Any, call: Call, dtype: str, head_dim: int) -> list[Tensor]:
    batch = 1 if call.form == "packed" else 2
    shapes = (
        (batch, module.HEADS, call.n_q, head_dim),
        (batch, module.KV_HEADS, call.n_k, head_dim),
        (batch, module.KV_HEADS, call.n_k, head_dim),
    )
    return [torch.empty(x, dtype=DTYPES[dtype], device="meta") for x in shapes]


def _inputs(module: Any, call: Call) -> dict[str, object]:
    """The inputs of a call, of the types that a package is built for."""
    own = {"b": 2, "h": module.HEADS, "g": module.KV_HEADS, "group": call.n_k}
    positions = {"q": call.n_k, "k": call.n_k}  # the last query is at the last key
    found: dict[str, object] = {}
    for name, (element, axes, _) in getattr(module, "INPUTS", {}).items():
        sizes = [
            max(0, (positions[kind] - 1 - shift) // divisor + 1)
            if kind in positions
            else own.get(kind, size)
            for kind, shift, divisor, size in axes
        ]
        found[name] = torch.empty(sizes, dtype=TABLES[element], device="meta")
    return found


def _some_lists(batch: int, heads: int) -> tuple[Any, ...]:
    """Lists that follow data, of the types that they have; there are no tiles in them."""
    one = torch.empty(1, dtype=torch.int32, device="meta")
    kinds = torch.empty(batch, heads, 1, dtype=torch.int32, device="meta")
    first = kinds.to(torch.int64)
    return one, first, kinds, kinds, one[None], kinds[..., 0], heads
