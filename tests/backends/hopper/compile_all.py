"""Compile kernels for Hopper without one; a JSON line for each.

In: a folder, then specifications `program,D,D_v,dtype`. Out: `Report`s. A process of
its own, because the other tests run Triton's interpreter.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from patternc.backends.hopper.offline import compile_offline
from tests.backends.hopper.programs import module_of


def main(folder: Path, specifications: list[str]) -> None:
    """Print one report for each specification."""
    for specification in specifications:
        program, head_dim, value_dim, dtype = specification.split(",")
        report = compile_offline(
            module_of(program, folder),
            head_dim=int(head_dim),
            value_dim=int(value_dim),
            dtype=dtype,
        )
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
