"""Compiling what the suite will time, in several processes at once, before it does.

In: the parts, rows and head sizes of a run. Out: full compilation caches on disk. Not
its job: any figure: these processes disturb one another, and what they time is thrown
away. A device's time is dear, and most of a cold run is compilation on one core.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import patternc
from patternc.bench.suite import Row

PARTS = ("forward", "backward")
"""The parts that compile the most."""

MOST_PROCESSES = 6


def warm(parts: Sequence[str], rows: Sequence[Row], head_dims: Sequence[int]) -> int:
    """Run the suite on shares of the rows, all at once; how many processes failed."""
    shares = commands(parts, rows, head_dims)
    root = str(Path(patternc.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "patternc", *share],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for share in shares
    ]
    return sum(process.wait() != 0 for process in running)


def commands(
    parts: Sequence[str], rows: Sequence[Row], head_dims: Sequence[int]
) -> list[list[str]]:
    """The arguments of each process: every row in exactly one of them."""
    wanted = [part for part in PARTS if part in parts]
    if not wanted or len(rows) < 2:
        return []
    count = min(MOST_PROCESSES, len(rows), max(1, (os.cpu_count() or 1) // 2))
    fixed = ["bench", "--suite"]
    for part in wanted:
        fixed += ["--part", part]
    for head_dim in head_dims:
        fixed += ["--head-dim", str(head_dim)]
    names = [row.name for row in rows]
    return [[*fixed, "--rows", ",".join(names[at::count])] for at in range(count)]
