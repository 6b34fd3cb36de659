"""How many kernels many different calls would compile; prints the number.

In: a folder. Not its job: compiling. A process of its own, because Triton's
interpreter specialises nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from patternc.backends.triton.offline import TARGETS
from patternc.plan.kernel import Schedule
from tests.backends.triton.programs import module_of

CALLS = [
    (1, 1, 1, 0, 1),
    (1, 16, 16, 0, 16),
    (1, 17, 100, 83, 7),
    (2, 128, 256, 128, 1024),
    (3, 1, 4096, 4095, 0),
    (1, 64, 64, -64, 2**30),
    (1, 64, 1, 1, -(2**30)),
    (5, 1000, 1000, 2**20, 16),
]
"""Batch, n_q, n_k, q_offset and the window."""


class Recorder:
    """Stands for the kernel and keeps what identifies a compiled one."""

    def __init__(self, kernel: Any) -> None:
        backend = make_backend(TARGETS["sm_90"])
        self.bind = create_function_from_signature(
            kernel.signature, kernel.params, backend
        )
        self.keys: set[str] = set()
        self.__name__ = str(kernel.__name__)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: object, **options: object) -> None:
            _, specialisation, rest = self.bind(*arguments, **options)
            self.keys.add(f"{specialisation} {rest}")

        return launch


def main(folder: Path) -> None:
    """Call the launcher with every kind of size and print the number of kernels."""
    module: Any = module_of("window", folder, Schedule())
    recorder = module.forward_kernel = Recorder(module.forward_kernel)
    for batch, n_q, n_k, q_offset, width in CALLS:
        q = torch.empty(batch, module.HEADS, n_q, 64, dtype=torch.bfloat16)
        k = torch.empty(batch, module.KV_HEADS, n_k, 64, dtype=torch.bfloat16)
        lse = torch.empty(q.shape[:3])
        values = {"w": width}
        module.launch(q, k, k.clone(), q.clone(), lse, 0.125, q_offset, values)
    print(len(recorder.keys))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
