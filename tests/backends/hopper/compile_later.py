"""First calls that look for marks, on a machine without a GPU; run as a module.

In: a folder, as the argument. Out: a line for each call: which launches it made, with how
many kernels compiled by then, and whether another is left to compile. Not its job:
checking them (`test_later`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from triton.runtime import driver

from tests.backends.hopper.programs import module_of
from tests.backends.triton.compile_together import Standing, compiled

MARK = 0x7FC0A77E
"""What `marked` writes."""


def main(folder: Path) -> None:
    """Make calls of both launches: nothing marked, then marked, then captured."""
    driver.set_active(Standing())
    module: Any = module_of("causal", folder)
    module.check_runs = lambda *_: None
    pairs: list[tuple[Any, Any]] = []
    start_both, module.start_both = module.start_both, lambda *pair: pairs.append(pair)
    q = torch.randn(1, module.HEADS, 64, 16, dtype=torch.float16)
    k = torch.randn(1, module.KV_HEADS, 64, 16, dtype=torch.float16)
    module.forward(q, k, k)
    module.start_both = start_both
    started: list[str] = []

    def start(
        kernel: Any, _: int, __: Any, options: Any, stages: int, kind: Any
    ) -> None:
        module.FITTING[(kernel.__name__, *kind)] = stages
        name = "again" if options["EXACT"] else "first"
        started.append(f"{name} {len(compiled(module))}")

    def call(lse: torch.Tensor) -> None:
        module.start_looking(*pairs[0], lse)
        print(*started, len(module.LATER), sep=", ")
        started.clear()

    def forget() -> None:
        module.FITTING.clear()
        for cache in module.forward_kernel.device_caches.values():
            cache[0].clear()

    module.start, module.can_look = start, lambda _: True
    lse = torch.zeros(1, module.HEADS, 64)
    for _ in range(3):
        call(lse)
    forget()
    spoiled = lse.clone()
    spoiled.view(torch.int32)[0, 1, 2] = MARK
    call(spoiled)
    forget()
    module.can_look = lambda _: False
    call(spoiled)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
