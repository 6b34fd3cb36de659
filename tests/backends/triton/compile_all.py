"""Compile modules for GPUs that are not there; a JSON line for each.

In: a folder, then specifications `program,target,head_dim,dtype,access,block_q,block_k,
warps,stages`; the access "gather" is that of tiles that follow an order. A tenth word
names a kernel of the backward pass, whose warps and stages are the module's. Out:
`offline.Report`s. A process of its own, because the other tests
run Triton's interpreter, which must be chosen before the import.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from patternc.backends.triton.offline import compile_offline
from patternc.plan.kernel import Schedule
from tests.backends.triton import data_programs, programs


def main(folder: Path, specifications: list[str]) -> None:
    """Print one report for each specification."""
    for specification in specifications:
        program, target, dim, dtype, access, *rest = specification.split(",")
        numbers, backward = rest[:4], "".join(rest[4:])
        is_plain = program in programs.PROGRAMS
        make = programs.module_of if is_plain else data_programs.module_of
        module = make(program, folder, Schedule(*map(int, numbers)))
        gathers = access == "gather"
        report = compile_offline(
            module,
            target,
            head_dim=int(dim),
            dtype=dtype,
            access="aligned" if gathers else access,
            kernel=backward or ("ordered_kernel" if gathers else "forward_kernel"),
        )
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
