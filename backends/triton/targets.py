"""The GPUs that a package can be built for.

In: nothing. Out: their names, and the shared memory of one block. Not its job: what the
tiles of a kernel need (`patternc.plan.choose`).
"""

from __future__ import annotations

from collections.abc import Mapping

SHARED_BYTES: Mapping[str, int] = {
    "sm_80": 166_912,
    "sm_86": 101_376,
    "sm_87": 166_912,
    "sm_89": 101_376,
    "sm_90": 232_448,
    "gfx90a": 65_536,
    "gfx942": 65_536,
    "gfx950": 163_840,
}
"""Every target, and the shared memory that one of its blocks may have.

NVIDIA: CUDA C++ Programming Guide, "Compute Capabilities", shared memory per block; AMD:
the LDS of a compute unit in the CDNA ISA documents.
"""
