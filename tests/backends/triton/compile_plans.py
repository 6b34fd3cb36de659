"""Compile what estimates and selects for GPUs that are not there; a JSON line for each.

In: a folder, then words `kernel,target,dtype`. Out: `offline.Report`s. A process of its
own, as in `compile_all`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from patternc.backends.triton.offline import compile_kernel
from tests.backends.triton.planning import module_of
from tests.kernels import CAUSAL

WARPS = {"choose_kernel": 1, "mass_kernel": 1}  # 8 of all others
PROBES: dict[str, dict[str, object]] = {
    "row_sums": {},
    "columns": {"HOW": "sum", "SOFTMAX": True},
    "diagonals": {
        "HOW": "sum",
        "SOFTMAX": True,
        "ANTI": False,
        "STEPS": 8,
        "ONE": True,
    },
    "parts": {
        "HOW": "sum",
        "SOFTMAX": True,
        "STRIDE": 8,
        "RESIDUE": 7,
        "RAGGED": False,
        "SUB": 16,
    },
}
SEARCHES: dict[str, dict[str, object]] = {
    "choose_kernel": {"HOW": "count", "BLOCK": 1024},
    "mass_kernel": {"HOW": "keep", "BLOCK": 1024},  # `choose_kernel`, by mass
    "segment_kernel": {"OF_MASS": False, "BITS": 8, "SEGMENTS": 32},
    "mark_kernel": {"BITS": 8, "SEGMENTS": 32},
    "count_kernel": {"BITS": 4, "SEGMENTS": 32},
    "list_kernel": {},
}
OF_MASS = {"mass_kernel", "count_kernel"}
HEAD_DIM = 128
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHARED = {"sm_80": 166912, "sm_90": 232448, "gfx942": 65536}
CPU = torch.device("cpu")


def main(folder: Path, words: list[str]) -> None:
    """Print one report for each word."""
    module = module_of(CAUSAL, folder)
    for word in words:
        name, target, dtype = word.split(",")
        like = torch.empty(1, 1, 0, HEAD_DIM, dtype=DTYPES[dtype])
        vars(module)["shared_memory"] = {CPU: SHARED[target]}.__getitem__
        keys = module.DIAGONAL_TILE if name == "diagonals" else module.KEY_TILE
        tiles = module.fitting(like, module.ROW_TILE, keys)
        if name == "diagonals":
            tiles = module.fitting(like, module.ROW_TILE, keys, module.DIAGONAL_STAGES)
        if name == "parts":
            tiles = module.fitting_parts(like)
        stages = tiles.pop("num_stages")
        warps = tiles.pop("num_warps", module.PROBE_WARPS)
        constants: dict[str, object] = {
            "HEADS": 32,
            "GROUP_SIZE": 4,
            "HEAD_DIM": HEAD_DIM,
            "BLOCK_D": HEAD_DIM,
            **tiles,
            "PRECISION": "tf32x3" if dtype == "fp32" else "ieee",
            "stride_qd": 1,
            "stride_kd": 1,
            "stride_d": 1,
            **PROBES.get(name, {}),
            **SEARCHES.get(name, {}),
        }
        own = "choose_kernel" if name == "mass_kernel" else name
        kernel = module.MAP_0[name] if name in PROBES else getattr(module, own)
        if name in SEARCHES:
            warps = WARPS.get(name, 8)
            constants.setdefault("BLOCK", module.MASS_BLOCK)
            constants |= {"leasts": None, "mosts": None}
        if name == "pool_kernel":
            constants |= {"HOW": "mean", "ROWS": 64}
        if name in ("part_sums_kernel", "join_kernel"):
            constants |= {"ROWS": 8, "BLOCK": module.JOIN_TILE, "EACH": 1}
            constants |= {"HOW": "sum", "SOFTMAX": True}
        whole = "fp64" if name in OF_MASS else "i32"
        pointers = {
            **dict.fromkeys(("q_source", "k_source", "source"), dtype),
            **dict.fromkeys(("lse", "parts", "values"), "fp32"),
            "counts": "i16" if name == "parts" else "i32",
            "part_counts": "i16",
            "classes": "i8",
            "table": "i8",
            "places": "i32",
            "prefixes": "i32",
            **dict.fromkeys(("left", "rests", "sums", "amounts"), whole),
        }
        strides = [f"stride_{side}{axis}" for side in "qk" for axis in "bhn"]
        report = compile_kernel(
            kernel,
            target,
            {x: pointers[x] for x in kernel.arg_names if x in pointers},
            {x: constants[x] for x in kernel.arg_names if x in constants},
            warps=warps,
            stages=stages,
            aligned=(*strides, "stride_b", "stride_h", "stride_n", "groups"),
        )
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
