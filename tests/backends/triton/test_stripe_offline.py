"""What the compilers make of kernels over chosen diagonals, columns and blocks."""

from __future__ import annotations

import json
from pathlib import Path

from tests.backends.triton.test_offline import run

STRIPES = (
    "vertical_slash,sm_90,128,bf16,descriptor,64,64,4,3",
    "flexible,sm_90,128,bf16,descriptor,64,64,4,2",
    "vertical_slash,sm_90,128,bf16,descriptor,64,64,4,2,query_gradient_kernel",
)
OTHERS = (
    "vertical_slash,sm_90,128,bf16,descriptor,64,64,4,2,key_gradient_kernel",
    "vertical_slash,sm_90,128,bf16,descriptor,64,64,4,2,column_gradient_kernel",
    "flexible,sm_80,64,bf16,aligned,64,64,4,2",
    "vertical_slash,gfx942,64,fp16,aligned,64,64,4,1",
)


def test_machine_code(tmp_path: Path) -> None:
    """Asynchronous products that wait for nothing, tiles by TMA, rows by address."""
    lines = run("compile_all", str(tmp_path), *STRIPES, *OTHERS).splitlines()
    reports = dict(zip((*STRIPES, *OTHERS), map(json.loads, lines), strict=True))
    for name in STRIPES:
        assert (reports[name]["spills"], reports[name]["serialised"]) == (0, []), name
        for instruction in ("HGMMA", "UTMALDG", "LDGSTS"):
            assert reports[name]["counts"][instruction] > 0, (name, instruction)
        assert reports[name]["counts"]["HMMA"] == 0, name
    # Two thread blocks share a multiprocessor, a kilobyte for each being the system's.
    assert 2 * (reports[STRIPES[0]]["shared"] + 1024) <= 228 * 1024
    # The key gradient of 128 columns spills without stripes, too.
    assert all(reports[name]["spills"] <= 512 for name in OTHERS)
    for name in OTHERS:
        counts = reports[name]["counts"]
        assert counts["HGMMA"] + counts["HMMA"] + counts["v_mfma"] > 0, name
