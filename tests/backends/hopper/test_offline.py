"""What the compilers make of the kernel for Hopper, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KERNELS = ("causal,128,128,bf16", "documents,64,128,fp16")

MOST_SPILLED = {"causal": 96, "documents": 128}
"""Bytes of sizes and addresses that a thread keeps on its stack; of tiles none are."""


def test_machine_code(tmp_path: Path) -> None:
    folder = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.backends.hopper.compile_all", folder, *KERNELS],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_CACHE_DIR": folder, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(KERNELS)
    for name, report in zip(KERNELS, reports, strict=True):
        assert report["spills"] <= MOST_SPILLED[name.split(",")[0]], name
        assert report["serialised"] == [], name
        assert report["shared"] <= 227 * 1024, name
        counts = report["counts"]
        # Products of q and k, and of weights and v, in each of two groups of warps:
        # before the loops, in both, and after them; 16 columns or keys each.
        dims = [int(dim) // 16 for dim in name.split(",")[1:3]]
        assert counts["HGMMA"] == 2 * (3 * dims[0] + 3 * 8), name
        # In two loops of two groups a thread has 64 weights of a tile, and two decays.
        # Products that the assembler makes them wait for would leave the device idle.
        assert counts["overlapped"] >= 2 * 2 * 60, name
        assert counts["UTMALDG"] > 0, name
        assert counts["SETMAXREG"] > 0, name
