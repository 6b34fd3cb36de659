"""What the compilers make of the kernels that estimate and select, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

from tests.backends.triton.test_offline import run

HOPPER = (
    "columns",
    "diagonals",
    "parts",
    "join_kernel",
    "mass_kernel",
    "segment_kernel",
)
WIDE = ("columns,sm_90,fp32",)
"""Products of float32 take the most shared memory; they spill."""

OTHERS = ("row_sums,sm_80,fp16", "diagonals,gfx942,fp16")
SHARED = {"sm_80": 166912, "sm_90": 232448, "gfx942": 65536}


def test_machine_code(tmp_path: Path) -> None:
    """One test, so that all is compiled once and in one process."""
    wanted = (*(f"{name},sm_90,bf16" for name in HOPPER), *OTHERS, *WIDE)
    lines = run("compile_plans", str(tmp_path), *wanted).splitlines()
    for name, line in zip(wanted, lines, strict=True):
        report, target = json.loads(line), name.split(",")[1]
        assert report["shared"] <= SHARED[target], name
        if name in WIDE:
            continue
        # The greatest tile of parts is the fastest on an H200, though it spills a little.
        most = 128 if name.startswith("parts") else 0
        assert report["spills"] <= most and not report["serialised"], name
        if name.startswith(("columns", "diagonals,sm_90", "parts")):
            assert report["counts"]["HGMMA"] > 0, name
            assert report["counts"]["LDGSTS"] > 0, name
        if name.startswith("diagonals,gfx942"):
            assert report["counts"]["v_mfma"] > 0, name
