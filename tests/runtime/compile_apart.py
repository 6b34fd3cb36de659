"""Compile kernels with what targets share, and each on its own: the code is the same.

Run as a program by `test_build_together`, as a process that interprets kernels compiles
none. Prints how many kernels took their first form from another target.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from patternc.backends.triton.build import Wanted, _jobs
from patternc.backends.triton.emit import emit
from patternc.backends.triton.machine_code import compile_job
from tests.runtime.packages import kernel_of

TARGETS = ("sm_80", "sm_90", "gfx942")


def main() -> None:
    kernel = kernel_of("softcap")
    wanted = Wanted(TARGETS, ("fp16",), (32,), decode=False)
    with tempfile.TemporaryDirectory() as folder:
        path, shared = Path(folder, "attention.py"), Path(folder, "shared")
        shared.mkdir()
        text = kernel.attention.span.source.text
        path.write_text(emit(kernel, text, kernel.attention.name, None))
        jobs = _jobs(path, kernel, wanted)
        for at, job in enumerate(jobs):
            apart = Path(folder, str(at))
            apart.mkdir()
            together = compile_job(path, job, shared)
            assert together == compile_job(path, job, apart), job
        print(len(jobs) - len(list(shared.glob("*.ttir"))))


if __name__ == "__main__":
    main()
