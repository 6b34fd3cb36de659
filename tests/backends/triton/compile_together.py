"""Compile what a first call launches, on a machine without a GPU; run as a module.

In: a folder, as the argument. Out: lines on stdout: the kernels that were compiled
before anything was launched; how many were parsed at once; the launchers that were built
by then, and the tiles that each reads by TMA; whether the mode that compiles ended after
an error. Not its job: checking them (`test_offline`).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import triton
from triton.compiler import ASTSource
from triton.runtime import driver

from patternc.backends.triton.offline import TARGETS
from tests.backends.triton.programs import module_of


class Standing:
    """Stands for Triton's driver on a device that is not there."""

    def __init__(self) -> None:
        self.launchers: list[int] = []

    def launcher_cls(self, src: object, metadata: Any) -> None:
        """Build what launches a kernel, which reads so many tiles by TMA."""
        self.launchers.append(len(metadata.tensordesc_meta))

    def get_current_target(self) -> object:
        """The device."""
        return TARGETS["sm_90"]

    def get_current_device(self) -> int:
        """Its number."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Its default stream."""
        return 0


class Parsing:
    """Notes how many kernels are parsed at once, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._make_ir = ASTSource.make_ir

    def __call__(self, src: ASTSource, *given: Any) -> Any:
        """Parse one, slowly."""
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.1)
        try:
            return self._make_ir(src, *given)
        finally:
            self.now -= 1


def main(folder: Path) -> None:
    """Call a module whose launches are noted, and print what was compiled by then."""
    standing, parsing = Standing(), Parsing()
    driver.set_active(standing)
    ASTSource.make_ir = lambda *given: parsing(*given)
    module: Any = module_of("causal", folder)
    module.check_runs = lambda *_: None
    launched: list[int] = []
    module.start = lambda *_: launched.append(len(compiled(module)))
    q = torch.randn(1, module.HEADS, 64, 16, dtype=torch.float16)
    k = torch.randn(1, module.KV_HEADS, 64, 16, dtype=torch.float16)
    module.forward(q, k, k)
    print(*launched)
    print(parsing.most)
    print(*standing.launchers)
    module.compile_in_turn = fail
    module.forward(*(torch.cat([x, x], 3) for x in (q, k, k)))
    with triton.AsyncCompileMode(None):
        print(len(compiled(module)))


def compiled(module: Any) -> list[object]:
    """The machine code that the forward kernel has."""
    caches = module.forward_kernel.device_caches.values()
    return [code for cache in caches for code in cache[0].values()]


def fail(*_given: object, **_options: object) -> None:
    """A compiler that finds something wrong."""
    raise ValueError("wrong")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
