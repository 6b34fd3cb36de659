"""Compile a kernel module for a GPU that is not there, and look at the code.

In: an imported module, a target, a head size and a dtype. Out: what the machine code
uses: registers, spills, tensor-core and TMA instructions, serialised products. Not its
job: running anything, packaging what was compiled.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

TARGETS: Mapping[str, GPUTarget] = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

_INSTRUCTIONS = (
    "HGMMA",
    "HMMA",
    "UTMALDG",
    "LDGSTS",
    "STL",
    "LDL",
    "v_mfma",
)


@dataclass(frozen=True, slots=True)
class Report:
    """What the machine code uses.

    `registers` for each thread; `spills` in bytes (on AMD in registers); `shared` in
    bytes for each thread block; `counts` of instructions, HGMMA being Hopper's
    asynchronous product; `serialised` holds ptxas's warnings (C75xx) that such
    products wait for one another.
    """

    registers: int
    spills: int
    shared: int
    counts: Mapping[str, int]
    serialised: tuple[str, ...]


def compile_kernel(
    kernel: triton.JITFunction,
    target: str,
    pointers: Mapping[str, str],
    constants: Mapping[str, object],
    *,
    warps: int,
    stages: int,
    aligned: Collection[str] = (),
) -> Report:
    """Compile one kernel whose pointers are to elements of the given types.

    `constants` are its constexprs, and strides that are known; `aligned` are further
    arguments that 16 divides, as all pointers are. Other numbers are int32 where the
    kernel does not say.
    """
    types: dict[str, str] = {}
    known: dict[tuple[int, ...], object] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}
    for at, parameter in enumerate(kernel.params):
        name = parameter.name
        if name in constants:
            types[name], known[(at,)] = "constexpr", constants[name]
            continue
        types[name] = parameter.annotation_type or "i32"
        if name in pointers:
            types[name] = f"*{pointers[name]}"
        if name in pointers or name in aligned:
            attributes[(at,)] = [["tt.divisibility", 16]]
    return _compiled(ASTSource(kernel, types, known, attributes), target, warps, stages)


def compile_offline(
    module: ModuleType,
    target: str,
    *,
    head_dim: int = 128,
    value_dim: int | None = None,
    dtype: str = "bf16",
    access: str = "descriptor",
    warps: int | None = None,
    stages: int | None = None,
    kernel: str = "forward_kernel",
    exact: bool = False,
    is_split: bool = False,
    is_packed: bool = False,
) -> Report:
    """Compile the module's kernel. `dtype` is Triton's word (bf16, fp16, fp32).

    D_v is D unless given. Warps and stages are those of the module unless given; `kernel`
    is one of `forward_kernel`, `combine_kernel`, `query_gradient_kernel`,
    `key_gradient_kernel` and `column_gradient_kernel`, or the one for calls whose tiles follow an order
    (`ordered_kernel`, `ordered_...`). `exact` is a kernel's second launch, which keeps
    hidden NaN out, `is_split` the one whose programs take shares of the steps, `is_packed` the one
    of those whose rows are of several heads. Integer inputs are compiled as int32.
    """
    dims = (head_dim, value_dim or head_dim)
    columns = max(module.padded(dim) for dim in dims)
    itemsize = 4 if dtype == "fp32" else 2
    work = _work(kernel)
    own = module.LAUNCHES[work, columns, itemsize]
    own = module.fitted_to(compiler_of(target), work, columns, *own)
    source = _source(
        module,
        getattr(module, kernel),
        target,
        dims,
        dtype,
        access,
        {"EXACT": exact, "IS_SPLIT": is_split or is_packed, "PACKED": is_packed},
    )
    return _compiled(source, target, warps or own[0], stages or own[1])


def _compiled(source: ASTSource, target: str, warps: int, stages: int | None) -> Report:
    """Compile and look at the machine code."""
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    said = io.StringIO()
    with knobs.nvidia.scope(), contextlib.redirect_stdout(said):
        knobs.nvidia.dump_ptxas_log = True
        compiled = triton.compile(source, target=TARGETS[target], options=options)
    shared = int(compiled.metadata.shared)
    if target.startswith("gfx"):
        return _amd_report(compiled.asm["amdgcn"], shared)
    # Nothing is said of what was compiled before, by another process.
    log = said.getvalue() or assembler_log(compiled.asm["ptx"], target)
    return Report(
        int(_first(r"Used (\d+) registers", log)),
        int(_first(r"(\d+) bytes spill stores", log)),
        shared,
        _counts(_disassembled(compiled.asm["cubin"])),
        serialised_codes(log),
    )


def compiler_of(target: str) -> str:
    """What a generated module calls the compiler of a target."""
    if not target.startswith("sm_"):
        return "amd"
    return "hopper" if int(target.removeprefix("sm_")) >= 90 else "ampere"


def _work(kernel: str) -> str:
    """What a kernel does, as LAUNCHES calls it."""
    name = kernel.removeprefix("ordered_").removesuffix("kernel").rstrip("_")
    if not name.endswith("gradient"):
        return "forward"
    return name.removesuffix("_gradient").replace("column", "key")


def _source(
    module: ModuleType,
    kernel: triton.JITFunction,
    target: str,
    dims: tuple[int, int],
    dtype: str,
    access: str,
    variant: Mapping[str, bool],
) -> ASTSource:
    """The kernel with the types that the launcher would give it."""
    rows, keys = module.BLOCK_Q, module.BLOCK_K
    combines = kernel is module.combine_kernel
    scratch = ("share_acc", "share_sums")
    blocks = {"q": rows, "k": keys, "v": keys, "o": rows}
    values = {
        "HEADS": module.HEADS,
        "GROUP_SIZE": module.HEADS // module.KV_HEADS,
        "HEAD_DIM": dims[0],
        "VALUE_DIM": dims[1],
        "BLOCK_D": module.padded(dims[0]),
        "BLOCK_DV": module.padded(dims[1]),
        "BLOCK_Q": 1 if combines else module.BLOCK_Q,
        "SHARES": module.MOST_SPLITS,
        "BLOCK_K": module.BLOCK_K,
        "ACCESS": access,
        **variant,
        "SEQUENCES": "none",
        "sequences": None,
        "POSITIVE_SCALE": True,
        "PRECISION": _precision(dtype, target),
        "EPILOGUE": True,
        "READ_GRADIENTS": True,
        "PAIR_GRADIENTS": True,
        "MEMBERS": module.HEADS // module.KV_HEADS,
        **({} if combines or variant["IS_SPLIT"] else dict.fromkeys(scratch)),
    }
    # Chosen columns add to the rows of their keys, in single precision till the end.
    summed = "fp32" if hasattr(module, "column_gradient_kernel") else dtype
    pointers = {
        "output": dtype,
        **dict.fromkeys(scratch, "fp32"),
        "lse": "fp32",
        "spoiled": "i8",
        "shift_source": "fp32",
        "delta_source": "fp32",
        "read_gradients": "fp32",
        "query_gradient": dtype,
        **dict.fromkeys(("key_gradient", "value_gradient"), summed),
        "list_tiles": "i32",
        "list_first": "i64",
        "list_partial": "i32",
        "list_full": "i32",
        "tokens": "i32",
        "token_rows": "i32",
        "v_rows": dtype,
        "stripe_words": "i32",
        "stripe_tiles": "i32",
        "tile_words": "i64",
        "stripe_held": "i32",
        "stripe_columns": "i32",
        "column_words": "i32",
        "stripe_bounds": "i32",
        "stripe_blocks": "i16",
        "block_ends": "i32",
        "key_rows": dtype,
        "value_rows": dtype,
        **({"q_source": dtype} if variant["PACKED"] else {}),
        **input_types(module),
        **({} if access == "descriptor" else {f"{x}_source": dtype for x in "qkvo"}),
    }
    types: dict[str, str] = {}
    constants: dict[tuple[int, ...], object] = {}
    aligned: dict[tuple[int, ...], list[list[object]]] = {}
    for at, parameter in enumerate(kernel.params):
        name = parameter.name
        if name in values:
            types[name] = "constexpr"
            constants[(at,)] = values[name]
        elif name in pointers or name.startswith("pair_sums_"):
            types[name] = f"*{pointers.get(name, 'fp32')}"
            if not name.startswith("t_"):  # inputs may have any alignment
                aligned[(at,)] = [["tt.divisibility", 16]]
        elif name.endswith("_source"):
            columns = values["BLOCK_DV" if name[0] in "vo" else "BLOCK_D"]
            types[name] = f"tensordesc<{dtype}[1, 1, {blocks[name[0]]}, {columns}]>"
        else:
            types[name] = parameter.annotation_type
    return ASTSource(kernel, types, constants, aligned)


def input_types(module: ModuleType) -> dict[str, str]:
    """The element types of the inputs' pointers."""
    types = {"int": "i32", "bool": "i8", "float": "fp32"}
    inputs = getattr(module, "INPUTS", {})
    return {f"t_{name}": types[held] for name, (held, *_) in inputs.items()}


def _precision(dtype: str, target: str) -> str:
    return "tf32x3" if dtype == "fp32" and target.startswith("sm_") else "ieee"


def assembler_log(ptx: str, target: str) -> str:
    """What the assembler says of the code; Triton itself hides its warnings."""
    version = int(target.removeprefix("sm_"))
    arch = f"{target}a" if version >= 90 else target
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        program = get_ptxas(version).path
        command = [
            program,
            "-v",
            f"--gpu-name={arch}",
            str(path),
            "-o",
            f"{path}.cubin",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _disassembled(cubin: bytes) -> str:
    """The instructions, without the encodings that Triton's own listing has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [knobs.nvidia.nvdisasm.path, "-c", "-ndf", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def serialised_codes(log: str) -> tuple[str, ...]:
    """The assembler's warnings that products wait for one another, in order.

    Others, as C7519, which says where it put an instruction, cost nothing.
    """
    return tuple(re.findall(r"\((C75\d\d)\)[^\n]*\bserialized\b", log))


def _amd_report(code: str, shared: int) -> Report:
    registers = int(_first(r"\.vgpr_count:\s+(\d+)", code))
    spills = int(_first(r"\.vgpr_spill_count:\s+(\d+)", code))
    return Report(registers, spills, shared, _counts(code), ())


def _counts(code: str) -> dict[str, int]:
    return {name: len(re.findall(rf"\b{name}", code)) for name in _INSTRUCTIONS}


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiler's report has no {pattern}")
    return found[1]
