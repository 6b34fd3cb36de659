"""One launch compiled for a GPU that is not there.

In: a generated module's file, a recorded launch's types and constants, a target. Out:
machine code, how it takes its arguments, what it uses. Not its job: which launches
(`recording`), the package (`build`).

Nothing of the machine that compiles, its folders least of all, is in the code: line
numbers are left out. The assembler's log, which Triton hides, tells spills and products
that wait for one another.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from patternc.backends.triton.assembler import steady
from patternc.backends.triton.front import SharedSource
from patternc.backends.triton.load import import_file
from patternc.backends.triton.offline import serialised_codes
from patternc.backends.triton.recording import Launch
from patternc.backends.triton.targets import SHARED_BYTES
from patternc.runtime.layout import slots_of
from patternc.runtime.manifest import READ_NO_TOKENS, Argument, Tile, Usage

Constant = bool | int | float | str | None

WORDS: Mapping[torch.dtype, str] = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}

# From Triton's numbers of element types to those of cuTensorMapEncodeTiled: Triton's
# own table, `TMA_DTYPE_DEVICE_TO_HOST` of its NVIDIA driver.
_MAP_TYPES = {8: 10, 9: 8, 10: 9}


_NVIDIA = {
    "wgmma": r"wgmma\.mma_async",
    "mma": r"\bmma\.sync",
    "tma": r"cp\.async\.bulk\.tensor\.\dd\.shared",
    "wide": r"cp\.async\.cg\.shared\.global|ld\.global\S*\.v(?:4\.b32|2\.b64)",
    "narrow": r"ld\.global(?:\.L\S+|\.nc)*\.b16",
}
_AMD = {
    "mfma": r"\bv_mfma",
    "wide": r"\b(?:global|buffer|flat)_load_dwordx4",
    "narrow": r"\b(?:global|buffer|flat)_load_(?:ushort|short|u16|i16)",
}
"""Instructions of PTX and of AMD's assembly: one each, whatever their operands."""


@dataclass(frozen=True, slots=True)
class Job:
    """What makes one variant: equal jobs give equal code.

    `types` are the signature's words by parameter, `aligned` the parameters on 16 bytes.
    `warps` and `stages` are None where the launch leaves them to Triton.
    """

    kernel: str
    target: str
    dtype: str
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Constant], ...]
    aligned: tuple[str, ...]
    warps: int | None
    stages: int | None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A job done. `ptx` is the code that later devices may assemble again."""

    code: bytes
    ptx: bytes | None
    entry: str
    arguments: tuple[Argument, ...]
    warps: int
    threads: int
    stages: int
    shared: int
    usage: Usage


def job_of(kernel: Any, launch: Launch, target: str, dtype: str) -> Job:
    """The types that Triton would specialise a launch of this kernel on."""
    options = dict(launch.options)
    warps, stages = options.pop("num_warps", None), options.pop("num_stages", None)
    options.pop("enable_fp_fusion", None)
    types: list[tuple[str, str]] = []
    constants: list[tuple[str, Constant]] = []
    aligned: list[str] = []
    given = iter(launch.arguments)
    for parameter in kernel.params:
        name = parameter.name
        value = options[name] if name in options else next(given)
        if parameter.is_constexpr or value is None:
            types.append((name, "constexpr"))
            constants.append((name, value))
        elif isinstance(value, Tensor):
            types.append((name, f"*{WORDS[value.dtype]}"))
            if not parameter.do_not_specialize_on_alignment:
                aligned.append(name)
        elif hasattr(value, "block_shape"):
            word = WORDS[value.base.dtype]
            # Gluon's descriptors say how a tile lies in shared memory.
            layout = f",{value.layout!r}" if hasattr(value, "layout") else ""
            block = list(value.block_shape)
            types.append((name, f"tensordesc<{word}{block}{layout}>"))
        else:
            types.append((name, str(parameter.annotation_type)))
    return Job(
        launch.kernel,
        target,
        "" if launch.kernel in READ_NO_TOKENS else dtype,
        tuple(types),
        tuple(constants),
        tuple(aligned),
        warps,
        stages,
    )


def compile_job(path: Path, job: Job, cache: Path) -> Compiled:
    """Compile with as many stages, up to the job's, as shared memory holds.

    As the launcher does on a device. `cache` is a folder for Triton's own files, and for
    what jobs for other targets may take of this one: the module's alone. Raises
    `ValueError` if one stage is too much, or Triton was told to interpret.
    """
    if triton.knobs.runtime.interpret:
        raise ValueError(
            "TRITON_INTERPRET is set, and interpreted functions have no code"
        )
    kernel, limit = getattr(import_file(path), job.kernel), SHARED_BYTES[job.target]
    stages = job.stages
    while True:
        made, log = _compile(kernel, job, stages, cache)
        shared = int(made.metadata.shared)
        if shared <= limit:
            return _compiled(made, log, job)
        stages = int(made.metadata.num_stages) - 1
        if stages < 1:
            raise ValueError(
                f"{job.kernel} needs {shared} bytes of shared memory, {job.target} has"
                f" {limit}; build it with smaller tiles (block_q, block_k)"
            )


def gpu_target(target: str) -> GPUTarget:
    """Triton's object for a target's name."""
    if target.startswith("sm_"):
        return GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    return GPUTarget("hip", target, 64)


def _compile(kernel: Any, job: Job, stages: int | None, cache: Path) -> tuple[Any, str]:
    """Triton's result and the assembler's log."""
    at = {parameter.name: number for number, parameter in enumerate(kernel.params)}
    asked = (
        kernel,
        dict(job.types),
        {(at[name],): value for name, value in job.constants},
        {(at[name],): [["tt.divisibility", 16]] for name in job.aligned},
    )
    is_gluon = kernel.is_gluon()
    source = GluonASTSource(*asked) if is_gluon else SharedSource(*asked, cache)
    options: dict[str, object] = {"enable_fp_fusion": True}
    options |= {} if job.warps is None else {"num_warps": job.warps}
    options |= {} if stages is None else {"num_stages": stages}
    log = io.StringIO()
    knobs = triton.knobs
    with (
        knobs.compilation.scope(),
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
        steady(cache),
    ):
        knobs.compilation.disable_line_info = True
        knobs.cache.dir = str(cache)
        knobs.nvidia.dump_ptxas_log = True
        made = triton.compile(source, target=gpu_target(job.target), options=options)
    return made, log.getvalue()


def _compiled(made: Any, log: str, job: Job) -> Compiled:
    metadata = made.metadata
    scratch = (
        getattr(metadata, "global_scratch_size", 0) + metadata.profile_scratch_size
    )
    assert scratch == 0 and metadata.num_ctas == 1, "the launcher has none of these"
    assert not getattr(metadata, "launch_cooperative_grid", False)
    is_nvidia = job.target.startswith("sm_")
    code = made.asm["cubin" if is_nvidia else "hsaco"]
    text = made.asm["ptx" if is_nvidia else "amdgcn"]
    arguments = arguments_of(job, metadata.tensordesc_meta)
    _check_layout(arguments, text, is_nvidia)
    threads = metadata.num_warps * metadata.warp_size
    assert not is_nvidia or f".reqntid {threads}\n" in text
    keeps = is_nvidia and int(job.target.removeprefix("sm_")) < 90
    return Compiled(
        code,
        text.encode() if keeps else None,
        str(metadata.name),
        arguments,
        # The launcher's own number, where it has one: the compiler may add warps.
        metadata.num_warps if job.warps is None else job.warps,
        threads,
        int(metadata.num_stages),
        int(metadata.shared),
        _usage(text, log, is_nvidia),
    )


def arguments_of(job: Job, maps: list[dict[str, Any]]) -> tuple[Argument, ...]:
    """What a launch passes; `maps` is what Triton says of each descriptor, in order."""
    constexprs = {name for name, value in job.constants if value is not None}
    found, left = [], iter(maps)
    for name, word in job.types:
        if name in constexprs:
            continue  # a constant of the kernel: no argument of a launch
        if word == "constexpr":
            found.append(Argument(name, "nothing", "", False, None))
        elif word.startswith("*"):
            element = word.removeprefix("*")
            found.append(Argument(name, "pointer", element, name in job.aligned, None))
        elif word.startswith("tensordesc"):
            element = word.removeprefix("tensordesc<").split("[")[0]
            own = next(left)
            assert not own["fp4_padded"]
            kind = _MAP_TYPES.get(own["elem_type"], own["elem_type"])
            tile = Tile(tuple(own["block_size"]), own["swizzle"], kind)
            found.append(Argument(name, "descriptor", element, True, tile))
        else:
            found.append(Argument(name, word, "", False, None))
    return tuple(found)


def _check_layout(arguments: tuple[Argument, ...], text: str, is_nvidia: bool) -> None:
    """Hold the runtime's idea of the parameters to the code's own."""
    expected = [(slot.offset, slot.size) for slot in slots_of(arguments)]
    found = []
    if is_nvidia:
        end = 0
        head = text[text.index(".entry") : text.index(".reqntid")]
        for bits, alignment, count in re.findall(
            r"\.param (?:\.[uf](\d+)|\.align (\d+) \.b8 \w+\[(\d+)\])", head
        ):
            size = int(bits) // 8 if bits else int(count)
            step = size if bits else int(alignment)
            offset = -(-end // step) * step
            found.append((offset, size))
            end = offset + size
    else:
        # What the driver fills in itself, such as the size of the grid, is hidden.
        own = r"\.offset: +(\d+)\n +\.size: +(\d+)\n +\.value_kind: +(?! |hidden_)"
        found = [(int(offset), int(size)) for offset, size in re.findall(own, text)]
    assert found == expected, f"parameters at {found}, expected {expected}"


def _usage(text: str, log: str, is_nvidia: bool) -> Usage:
    patterns = _NVIDIA if is_nvidia else _AMD
    counts = {name: len(re.findall(x, text)) for name, x in patterns.items()}
    if not is_nvidia:
        registers = int(_first(r"\.vgpr_count:\s+(\d+)", text))
        spills = int(_first(r"\.vgpr_spill_count:\s+(\d+)", text))
        return Usage(registers, spills, (), counts)
    warnings = tuple(sorted(set(serialised_codes(log))))
    registers = int(_first(r"Used (\d+) registers", log))
    spills = int(_first(r"(\d+) bytes spill stores", log))
    return Usage(registers, spills, warnings, counts)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiler's report has no {pattern}")
    return found[1]
