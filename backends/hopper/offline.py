"""Compile a module's kernel for Hopper without a GPU, and look at the code.

In: an imported module with `hopper_kernel`, head sizes and a dtype. Out: a `Report`.
Not its job: the portable kernels (`backends.triton.offline`).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

import triton
from triton import knobs
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from patternc.backends.triton.offline import (
    TARGETS,
    Report,
    assembler_log,
    input_types,
    serialised_codes,
)

_COUNTED = {
    "HGMMA": "wgmma.mma_async",
    "UTMALDG": "cp.async.bulk.tensor.4d.shared",
    "SETMAXREG": "setmaxnreg",
}


def compile_offline(
    module: ModuleType,
    *,
    head_dim: int = 128,
    value_dim: int | None = None,
    dtype: str = "bf16",
    sequences: str = "none",
) -> Report:
    """Compile `hopper_kernel` for sm_90. `dtype` is Triton's word (bf16, fp16).

    D_v is D unless given; `sequences` are "none", "padded" or "packed". Counts are of the
    instructions in PTX, and under "overlapped" of the exponentials in machine code that
    do not wait for the products of weights and values.
    """
    dims = (head_dim, value_dim or head_dim)
    compiled = triton.compile(
        _source(module, dims, dtype, sequences),
        target=TARGETS["sm_90"],
        options={"num_warps": 4},
    )
    ptx = compiled.asm["ptx"]
    log = assembler_log(ptx, "sm_90")
    return Report(
        int(_number(r"Used (\d+) registers", log)),
        int(_number(r"(\d+) bytes spill stores", log)),
        int(compiled.metadata.shared),
        {
            **{name: ptx.count(word) for name, word in _COUNTED.items()},
            "overlapped": _overlapped(compiled.asm["cubin"]),
        },
        serialised_codes(log),
    )


def _overlapped(cubin: bytes) -> int:
    """Exponentials between a wait for logits and the next one, for sums."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [knobs.nvidia.nvdisasm.path, "-c", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, is_between = 0, False
    for line in done.stdout.splitlines():
        if "WARPGROUP.DEPBAR" in line:
            is_between = "gsb0, 0x1" in line
        elif is_between and "MUFU.EX2" in line:
            count += 1
    return count


def _source(
    module: ModuleType, dims: tuple[int, int], dtype: str, sequences: str
) -> GluonASTSource:
    """The kernel with the types that the launcher would give it."""
    half = module.HOPPER_Q // 2
    blocks = {"q": half, "k": module.HOPPER_K, "v": module.HOPPER_K, "o": half}
    columns = {"q": dims[0], "k": dims[0], "v": dims[1], "o": dims[1]}
    layout = gl.NVMMASharedLayout(module.HOPPER_SWIZZLE, 16, rank=4)
    constants = {
        "HEADS": module.HEADS,
        "GROUP_SIZE": module.HEADS // module.KV_HEADS,
        "HEAD_DIM": dims[0],
        "VALUE_DIM": dims[1],
        "BLOCK_Q": module.HOPPER_Q,
        "BLOCK_K": module.HOPPER_K,
        "STAGES": module.HOPPER_STAGES[max(dims)],
        "SEQUENCES": sequences,
        **({"sequences": None} if sequences == "none" else {}),
    }
    tables = {name: f"*{held}" for name, held in input_types(module).items()}
    pointers = {
        "output": f"*{dtype}",
        "lse": "*fp32",
        "sequences": "*i32",
        "list_tiles": "*i32",
        "list_first": "*i64",
        "list_partial": "*i32",
        "list_full": "*i32",
        "stripe_blocks": "*i16",
        "block_ends": "*i32",
        **tables,
    }
    types: dict[str, str] = {}
    values: dict[tuple[int, ...], object] = {}
    aligned: dict[tuple[int, ...], list[list[object]]] = {}
    for at, parameter in enumerate(module.hopper_kernel.params):
        name = parameter.name
        if name in constants:
            types[name] = "constexpr"
            values[(at,)] = constants[name]
        elif name in pointers:
            types[name] = pointers[name]
            if name not in tables:  # inputs may have any alignment
                aligned[(at,)] = [["tt.divisibility", 16]]
        elif name.endswith("_source"):
            block = f"[1, 1, {blocks[name[0]]}, {columns[name[0]]}]"
            types[name] = f"tensordesc<{dtype}{block},{layout!r}>"
        else:
            types[name] = parameter.annotation_type
    return GluonASTSource(module.hopper_kernel, types, values, aligned)


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiler's report has no {pattern}")
    return found[1]
