"""Compile modules for GPUs that are not there; a JSON line for each.

In: a folder, then specifications `program,target,dims,dtype,access,block_q,block_k,warps,
stages`; `dims` are D, or D and D_v as `128x64`; 0 stages are those of the module. The
access "gather" is that of tiles that follow an order. Further words name a kernel of the
backward pass, whose warps and stages are the module's, or `combine_kernel`, and say `exact`,
for the kernel that keeps hidden NaN out, or `split` or `packed`, for the one whose programs
take shares of the steps, of several heads. Out: `offline.Report`s. A process of its own, because the other tests
run Triton's interpreter, which must be chosen before the import.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from patternc.backends.triton.offline import compile_offline
from patternc.plan.kernel import Schedule
from tests.backends.triton import (
    data_programs,
    pair_programs,
    programs,
    stripe_programs,
)

PARTS = (programs, data_programs, pair_programs, stripe_programs)


def main(folder: Path, specifications: list[str]) -> None:
    """Print one report for each specification."""
    for specification in specifications:
        program, target, dims, dtype, access, *rest = specification.split(",")
        block_q, block_k, warps, stages = map(int, rest[:4])
        words = {"exact", "split", "packed"} & {*rest[4:]}
        other = "".join(word for word in rest[4:] if word not in words)
        head_dim, value_dim = (int(dim) for dim in f"{dims}x{dims}".split("x")[:2])
        schedule = Schedule(block_q, block_k, warps, stages or None)
        (make,) = (x.module_of for x in PARTS if program in x.PROGRAMS)
        module = make(program, folder, schedule)
        gathers = access == "gather"
        report = compile_offline(
            module,
            target,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            access="aligned" if gathers else access,
            exact="exact" in words,
            is_split="split" in words,
            is_packed="packed" in words,
            kernel=other or ("ordered_kernel" if gathers else "forward_kernel"),
        )
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
