"""A program compiled ahead of time, for GPUs that need not be there.

In: a planned kernel, targets, dtypes, head sizes. Out: the bytes of a package, the same
for the same arguments and compilers wherever and however often it is built. Not its job:
the file's format (`patternc.runtime`), writing it.

Which kernels there are, and of which types, is not decided here: the generated module's
own host code says so for each kind of call that a package serves (`recording`).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.nvidia.compiler import get_ptxas

from patternc.backends.hopper.route import Route, packaged_route
from patternc.backends.triton.build_refusal import build_refusal
from patternc.backends.triton.choosing_facts import choosing_facts
from patternc.backends.triton.emit import DELTA_ROWS, LARGEST_DIM, emit, listing
from patternc.backends.triton.expected import expected_times
from patternc.backends.triton.features import (
    Features,
    features_of,
    follows_inputs,
)
from patternc.backends.triton.float_formulas import row_cases
from patternc.backends.triton.formulas import head_groups
from patternc.backends.triton.gradients import gradient_whole_only
from patternc.backends.triton.judges import listed_covers
from patternc.backends.triton.kernels import takes_lists
from patternc.backends.triton.launches import whole_only
from patternc.backends.triton.machine_code import Compiled, Job, compile_job, job_of
from patternc.backends.triton.pair_facts import pair_facts
from patternc.backends.triton.plan_facts import (
    input_facts,
    plan_facts,
    score_reads,
    stripe_facts,
)
from patternc.backends.triton.profiles import is_chosen, list_inputs
from patternc.backends.triton.ranges import box_of, has_lists, hides_pairs
from patternc.backends.triton.recording import (
    calls_of,
    fresh_module,
    recording_of,
)
from patternc.backends.triton.shares import packs
from patternc.backends.triton.stripes import Striped, striped, without_stripes
from patternc.backends.triton.workers import compile_all
from patternc.diagnostics import Diagnostic, PatternError
from patternc.plan.choose import bytes_beside, launches
from patternc.plan.kernel import Kernel
from patternc.plan.reverse import reverse
from patternc.runtime.codec import encode
from patternc.runtime.data import ListedCover
from patternc.runtime.format import Section, compressed, join
from patternc.runtime.manifest import (
    Alternative,
    Expected,
    Facts,
    Launch,
    Manifest,
    Source,
    Stages,
    Variant,
)
from patternc.runtime.tiles import Array, Lists
from patternc.version import VERSION


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a package is for.

    `forms` are those of sequences that it serves beside none: "padded", "packed". With
    `decode` calls of few query tiles have kernels whose programs share these tiles.
    """

    targets: tuple[str, ...]
    dtypes: tuple[str, ...]
    head_dims: tuple[int, ...]
    backward: bool = False
    forms: tuple[str, ...] = ()
    decode: bool = True


@dataclass(slots=True)
class _Blobs:
    """Blobs in order of appearance, equal ones once."""

    sections: list[Section] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    _numbers: dict[bytes, int] = field(default_factory=dict)

    def add(self, blob: bytes) -> int:
        """The number of a blob."""
        known = self._numbers.get(blob)
        if known is not None:
            return known
        section, stored = compressed(blob)
        self.sections.append(section)
        self.stored.append(stored)
        return self._numbers.setdefault(blob, len(self._numbers))


@dataclass(frozen=True, slots=True)
class Program:
    """A planned kernel.

    `dense` is that of what it allows instead where it is cheaper (`driver.dense_trace`).
    `values` of parameters that the compiler was given are only noted.
    """

    kernel: Kernel
    dense: Kernel | None = None
    values: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """One, or with what it allows instead two."""
        return (self.kernel,) if self.dense is None else (self.kernel, self.dense)


def build_package(
    kernel: Kernel,
    wanted: Wanted,
    *,
    processes: int,
    dense: Kernel | None = None,
    told: Callable[[int, int], None] = lambda done, count: None,
) -> bytes:
    """The package of a planned kernel: `build_packages` of one program."""
    program = Program(kernel, dense)
    (content,) = build_packages([program], wanted, processes=processes, told=told)
    return content


def build_packages(
    programs: Sequence[Program],
    wanted: Wanted,
    *,
    processes: int,
    told: Callable[[int, int], None] = lambda done, count: None,
) -> list[bytes]:
    """The packages of some programs, whose kernels are compiled side by side.

    `processes` is how many compile at once, 0: this one does. `told` hears how many
    kernels are done, and of how many. Raises `PatternError` for programs that can't be
    packaged, `ValueError` for tiles that a target has no room for.
    """
    refusals = [found for own in programs for found in _refusals(own, wanted)]
    if refusals:
        raise PatternError(refusals)
    with tempfile.TemporaryDirectory() as folder:
        modules = [
            [
                _module(Path(folder, f"program_{at}_{number}.py"), kernel, wanted)
                for number, kernel in enumerate(own.kernels)
            ]
            for at, own in enumerate(programs)
        ]
        work = {module.path: module.jobs for own in modules for module in own}
        done = compile_all(work, compile_job, processes, told)
        return [
            _package(program, own, done, wanted)
            for program, own in zip(programs, modules, strict=True)
        ]


def _refusals(program: Program, wanted: Wanted) -> list[Diagnostic]:
    """The first reason why a program can't be packaged, if there is one."""
    dense, backward = program.dense, wanted.backward
    found = build_refusal(program.kernel, backward, dense is not None)
    if found is None and dense is not None:
        found = build_refusal(dense, backward)
    return [] if found is None else [found]


@dataclass(frozen=True, slots=True)
class _Module:
    """A generated module's file, and what to compile of it."""

    path: Path
    kernel: Kernel
    hopper: Route | None
    jobs: list[Job]


def _module(path: Path, kernel: Kernel, wanted: Wanted) -> _Module:
    """Write a kernel's module."""
    attention = kernel.attention
    is_listed = follows_inputs(_visited(kernel)[0])
    has_hopper = "sm_90" in wanted.targets and not is_listed
    hopper = packaged_route(kernel) if has_hopper else None
    path.write_text(emit(kernel, attention.span.source.text, attention.name, hopper))
    return _Module(path, kernel, hopper, _jobs(path, kernel, wanted))


def _package(
    program: Program,
    modules: Sequence[_Module],
    done: Mapping[Path, Sequence[Compiled]],
    wanted: Wanted,
) -> bytes:
    """The package of a program whose kernels are compiled."""
    blobs = _Blobs()
    own, *others = [_part(x, done[x.path], wanted, blobs) for x in modules]
    other = None
    for its in others:
        chosen = choosing_facts(program.kernel.attention)
        other = Alternative(chosen, its.expected, its.facts, its.variants)
    manifest = Manifest(
        VERSION,
        {"triton": triton.__version__, **_assembler(wanted.targets)},
        _source(program.kernel, dict(program.values)),
        wanted.targets,
        wanted.dtypes,
        wanted.head_dims,
        wanted.backward,
        own.expected,
        own.facts,
        own.variants,
        other,
        tuple(blobs.sections),
    )
    return join(encode(manifest), blobs.stored)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a manifest says of one module; its code is among the blobs."""

    expected: tuple[Expected, ...]
    facts: Facts
    variants: tuple[Variant, ...]


def _part(
    module: _Module, done: Sequence[Compiled], wanted: Wanted, blobs: _Blobs
) -> _Part:
    kernel, hopper = module.kernel, module.hopper
    lists = _stored_lists(module.path, kernel, wanted.backward, blobs)
    return _Part(
        expected_times(kernel, hopper, wanted.head_dims, wanted.backward),
        _facts(kernel, hopper, lists, wanted),
        _variants(module.jobs, done, wanted.targets, blobs),
    )


def _jobs(path: Path, kernel: Kernel, wanted: Wanted) -> list[Job]:
    """What to compile, in an order that only the arguments decide, each once."""
    module, features = fresh_module(path), features_of(kernel)
    forms = () if whole_only(kernel) else wanted.forms
    gradients = not gradient_whole_only(kernel, features)
    calls = calls_of(kernel, wanted.backward, forms, gradients, wanted.decode)
    recording, found = recording_of(path), dict[Job, None]()
    for target in wanted.targets:
        for dtype in wanted.dtypes:
            for dim in wanted.head_dims:
                for call in calls:
                    for launch in recording.launches(call, dtype, dim, target):
                        own = getattr(module, launch.kernel)
                        found[job_of(own, launch, target, dtype)] = None
    return list(found)


def _variants(
    jobs: Sequence[Job],
    done: Sequence[Compiled],
    targets: tuple[str, ...],
    blobs: _Blobs,
) -> tuple[Variant, ...]:
    """PTX is kept of the oldest target alone: what comes later assembles it too."""
    oldest = min((x for x in targets if x.startswith("sm_")), default="")
    found = []
    for job, made in zip(jobs, done, strict=True):
        keeps = made.ptx is not None and job.target == oldest
        found.append(
            Variant(
                job.kernel,
                job.target,
                job.dtype,
                made.entry,
                {name: x for name, x in job.constants if x is not None},
                made.arguments,
                made.warps,
                made.threads,
                made.stages,
                made.shared,
                blobs.add(made.code),
                blobs.add(made.ptx) if keeps and made.ptx is not None else None,
                made.usage,
            )
        )
    return tuple(found)


def _stored_lists(
    path: Path, kernel: Kernel, backward: bool, blobs: _Blobs
) -> tuple[Lists, ...]:
    """The tile lists of whole calls, which the generated module builds."""
    layout, (other, features, _) = kernel.attention.layout, _visited(kernel)
    if layout is None or not takes_lists(other, features) or follows_inputs(other):
        return ()
    module: Any = fresh_module(path)
    size, values = layout.size, dict(module.PARAMS)
    sizes = (1, size, size, 0) if features.lists_data else (size, size, 0)
    more: tuple[object, ...] = ({}, features.is_ordered) if features.lists_data else ()
    lists = module.tile_lists(*sizes, values, *more, torch.device("cpu"))
    turned: tuple[Any, ...] = ()
    if backward and hasattr(module, "reversed_lists"):
        turned = module.reversed_lists(lists, 0, size)
    arrays = [
        tuple(_array(x, blobs) for x in some if isinstance(x, torch.Tensor))
        for some in (lists, turned)
    ]
    return (Lists(size, *arrays),)


def _array(tensor: torch.Tensor, blobs: _Blobs) -> Array:
    word = {torch.int32: "i32", torch.int64: "i64"}[tensor.dtype]
    return Array(word, tuple(tensor.shape), blobs.add(tensor.numpy().tobytes()))


def _visited(kernel: Kernel) -> tuple[Kernel, Features, Striped | None]:
    """What loops over tiles visit, as in the text of a module; and chosen stripes."""
    features, own = features_of(kernel), striped(kernel)
    if own is None:
        return kernel, features, None
    return *without_stripes(kernel, features, own), own


def _facts(
    kernel: Kernel, hopper: Route | None, lists: tuple[Lists, ...], wanted: Wanted
) -> Facts:
    attention, schedule = kernel.attention, kernel.schedule
    other, features, stripes = _visited(kernel)
    reversed_, is_striped = reverse(other, schedule), stripes is not None
    beside = bytes_beside(kernel)
    ordered = features.is_ordered
    taken = 4 if takes_lists(other, features) else 0
    turned = 4 if has_lists(reversed_) else 0
    blocks = schedule if hopper is None else hopper.kernel.schedule
    stages = {} if hopper is None else hopper.stages
    return Facts(
        attention.name,
        attention.heads,
        attention.kv_heads,
        {param.name: param.default for param in attention.params},
        schedule.block_q,
        schedule.block_k,
        None if hopper is None else (blocks.block_q, blocks.block_k),
        tuple(Stages(*pair) for pair in sorted(stages.items())),
        LARGEST_DIM,
        DELTA_ROWS,
        tuple(
            Launch(work, columns, itemsize, *numbers)
            for (work, columns, itemsize), numbers in launches(
                schedule, beside=beside
            ).items()
        ),
        None if attention.layout is None else attention.layout.size,
        ordered,
        packs(other, features),
        wanted.decode,
        hides_pairs(other) or is_striped,
        hides_pairs(reversed_) or is_striped,
        whole_only(kernel),
        gradient_whole_only(kernel, features),
        not features.unnormalised,
        head_groups(kernel),
        6 if ordered else taken,
        6 if ordered else turned,
        1 if features.lists_data else 0,
        lists,
        input_facts(attention),
        tuple(item.name for item in features.tables),
        stripe_facts(stripes),
        score_reads(features),
        pair_facts(other),
        *_listed(other, reversed_, features),
        plan_facts(attention, wanted.targets),
        *row_cases(features),
    )


def _listed(
    kernel: Kernel, reversed_: Kernel, features: Features
) -> tuple[tuple[str, ...], tuple[ListedCover, ...], bool]:
    """The inputs that tile lists follow, the heads whose tiles are listed so, and
    whether they follow what was chosen.
    """
    if not follows_inputs(kernel) or features.is_ordered:
        return (), (), False
    own = listing(kernel, reversed_)
    return tuple(list_inputs(own)), listed_covers(own, box_of(kernel)), is_chosen(own)


def _source(kernel: Kernel, values: dict[str, int | float]) -> Source:
    source = kernel.attention.span.source
    text = source.text.encode(errors="surrogatepass")
    digest = hashlib.sha256(text).hexdigest()
    return Source(
        Path(source.name).name, kernel.attention.name, source.text, digest, values
    )


def _assembler(targets: Sequence[str]) -> dict[str, str]:
    """The version of NVIDIA's assembler, if one of the targets is theirs."""
    numbers = [int(x.removeprefix("sm_")) for x in targets if x.startswith("sm_")]
    return {"ptxas": str(get_ptxas(max(numbers)).version)} if numbers else {}
