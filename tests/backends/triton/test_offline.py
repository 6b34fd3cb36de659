"""What the compilers make of the kernels, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__)

HOPPER = (
    "mixed,sm_90,128,bf16,descriptor,128,64,8,3",
    "duo,sm_90,64,bf16,descriptor,128,128,8,2",
    "streaming,sm_90,128,bf16,descriptor,64,64,4,3",
)
DATA = (
    "documents,sm_90,128,bf16,descriptor,64,64,4,3",
    "alibi,sm_90,128,bf16,descriptor,64,64,4,3",
    "sinks,sm_90,64,fp16,descriptor,64,64,4,2",
    "phases,sm_90,128,bf16,gather,64,64,4,2",
)
BACKWARD = (
    "causal,sm_90,128,bf16,descriptor,64,64,4,2,query_gradient_kernel",
    "causal,sm_90,128,bf16,descriptor,64,64,4,2,key_gradient_kernel",
    "weights,sm_90,64,bf16,descriptor,64,64,4,2,key_gradient_kernel",
    "documents,sm_90,128,bf16,descriptor,64,64,4,2,key_gradient_kernel",
)
WIDE = "causal,sm_80,256,bf16,aligned,64,64,4,0,key_gradient_kernel"
OTHER_BACKWARD = (
    WIDE,
    "causal,gfx942,64,fp16,aligned,64,64,4,1,query_gradient_kernel",
    "phases,sm_90,64,bf16,gather,64,64,4,2,ordered_key_gradient_kernel",
)
OTHER_DATA = (
    "alibi,sm_80,64,bf16,aligned,64,64,4,2",
    "phases,gfx942,64,fp16,gather,64,64,4,1",
)
_QUERY = "query_gradient_kernel"
PAIRS = {
    # How many bytes may be spilled: on sm_80, whose kernel spills as much without them.
    f"t5,sm_90,128,bf16,descriptor,64,64,4,0,{_QUERY}": 16,
    f"t5,sm_80,64,bf16,aligned,64,64,4,0,{_QUERY}": 128,
    f"coarse,gfx942,128,fp16,aligned,64,64,4,1,{_QUERY}": 0,
}
GUARDED = "streaming,sm_90,128,bf16,descriptor,64,64,4,3"
AMPERE = "causal,sm_80,64,bf16,aligned,128,64,8,2"
AMD = "duo,gfx942,64,fp16,aligned,128,64,4,1"
ANY_STRIDES = "negative,sm_90,64,bf16,any,128,64,8,3"


def run(script: str, folder: str, *arguments: str) -> str:
    """What a script of this folder prints, run without Triton's interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.backends.triton.{script}", folder, *arguments],
        cwd=HERE.parents[3],
        env={**os.environ, "TRITON_CACHE_DIR": folder, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_machine_code(tmp_path: Path) -> None:
    """One test, so that all is compiled once and in one process."""
    wanted: tuple[str, ...] = (*HOPPER, *DATA, *OTHER_DATA, AMPERE, AMD, ANY_STRIDES)
    wanted += (*BACKWARD, *OTHER_BACKWARD, *PAIRS)
    exact = [f"{name},exact" for name in (GUARDED, BACKWARD[0])]
    more = [f"{GUARDED},{word}" for word in ("split", "packed", "combine_kernel")]
    lines = run("compile_all", str(tmp_path), *wanted, *exact, *more).splitlines()
    *found, split, packed, combined = map(json.loads, lines)
    reports = dict(zip((*wanted, *exact), found, strict=True))
    # What keeps hidden NaN out runs for spoiled tiles alone: it may spill.
    assert reports[exact[0]]["serialised"] == []
    assert all(reports[name]["spills"] <= 4096 for name in exact)
    check_hopper(GUARDED, split)
    assert (packed["spills"], packed["serialised"], combined["spills"]) == (0, [], 0)
    assert packed["counts"]["HGMMA"] > 0
    for name in HOPPER:
        check_hopper(name, reports[name])
    for name in DATA:
        assert (reports[name]["spills"], reports[name]["serialised"]) == (0, []), name
        assert reports[name]["counts"]["HGMMA"] > 0, name
        loads = reports[name]["counts"]
        assert loads["LDGSTS" if "gather" in name else "UTMALDG"] > 0, name
    for name in BACKWARD:
        # Four warps are the fastest for 64 x 64 tiles on an H200, though the key
        # gradient of 128 columns then needs some registers more than there are.
        spills = ",128," in name and "key_gradient" in name
        assert reports[name]["spills"] <= (512 if spills else 0), name
        assert reports[name]["counts"]["HGMMA"] > 0, name
        assert reports[name]["counts"]["HMMA"] == 0, name
        assert reports[name]["counts"]["UTMALDG"] > 0, name
    assert reports[WIDE]["spills"] <= 512  # by eight warps; four spill 35 KB
    for name in OTHER_BACKWARD:
        counts = reports[name]["counts"]
        assert counts["HGMMA"] + counts["HMMA"] + counts["v_mfma"] > 0, name
    for name, most in PAIRS.items():
        assert reports[name]["spills"] <= most, name
    for name in OTHER_DATA:
        loads = reports[name]["counts"]
        assert loads["HMMA"] + loads["v_mfma"] > 0, name
    assert reports[AMPERE]["spills"] == 0
    assert reports[AMPERE]["counts"]["HMMA"] > 0
    assert reports[AMPERE]["counts"]["LDGSTS"] > 0  # asynchronous copies
    assert reports[AMD]["spills"] == 0
    assert reports[AMD]["counts"]["v_mfma"] > 0
    assert reports[ANY_STRIDES]["counts"]["HGMMA"] > 0


def check_hopper(name: str, report: dict[str, Any]) -> None:
    """Asynchronous products that wait for nothing, TMA loads, no spills."""
    assert report["spills"] == 0, name
    assert report["serialised"] == [], name
    assert report["counts"]["HGMMA"] > 0, name
    assert report["counts"]["HMMA"] == 0, name
    # Q once; for each of at most two loops K and V before it for each stage but one,
    # and in it.
    stages = int(name.split(",")[8])
    loops, rest = divmod(report["counts"]["UTMALDG"] - 1, 2 * stages)
    assert (loops in (1, 2), rest) == (True, 0), name
    assert report["shared"] <= 227 * 1024, name


def test_two_kernels_serve_every_size_and_parameter(tmp_path: Path) -> None:
    """One for many queries, one for few, whose heads and shares lie in one tile."""
    assert run("count_specialisations", str(tmp_path)).strip() == "2"


def test_both_launches_are_compiled_before_the_first(tmp_path: Path) -> None:
    """One is parsed at a time, and both launchers are built meanwhile.

    An error there does not leave Triton's mode on; the launch raises it.
    """
    lines = run("compile_together", str(tmp_path)).split("\n")
    assert lines[:4] == ["2 2", "1", "3 3", "2"]
