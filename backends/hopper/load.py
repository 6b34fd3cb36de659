"""From a kernel to a callable that is quick on Hopper.

In: a planned kernel. Out: its portable module, with a kernel in Gluon for the calls
that have one. Not its job: either text (`emit`, `backends.triton.emit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from patternc.backends.hopper.route import chosen_route
from patternc.backends.triton.load import TritonAttention, load_module
from patternc.diagnostics import Diagnostic
from patternc.plan.kernel import Kernel
from patternc.store import Store, default_store


@dataclass(frozen=True, slots=True)
class HopperBackend:
    """The portable kernels, and on sm_90 a forward kernel for what it can do.

    Programs and calls that it has no kernel for take the portable one (`route`), as do
    all gradients; `explain` says which.
    """

    name: ClassVar[str] = "hopper"
    store: Store = field(default_factory=default_store)

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """Nothing: what has no kernel for Hopper has a portable one."""
        return None

    def load(self, kernel: Kernel) -> TritonAttention:
        """Write the kernel's module and import it. Raises `OSError`."""
        return load_module(kernel, chosen_route(kernel), self.store)
