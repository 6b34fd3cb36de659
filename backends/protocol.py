"""What every backend is.

In: a planned kernel. Out: a callable on tensors, or a diagnostic that says why not.
Not its job: checking a call's arguments (`backends.checks`), which is done before a
loaded attention is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol

from torch import Tensor

from patternc.backends.sequences import Sequences
from patternc.diagnostics import Diagnostic
from patternc.plan.kernel import Kernel

NO_INPUTS: Mapping[str, Tensor] = MappingProxyType({})
"""For an attention that declares none."""


class LoadedAttention(Protocol):
    """An attention that is ready to run; its arguments are already checked."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        return_lse: bool,
        inputs: Mapping[str, Tensor] = NO_INPUTS,
        sequences: Sequences | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The output [B, H, n_q, D_v] in the dtype of `q`, and the LSE if wanted.

        `q` is [B, H, n_q, D], `k` [B, KV, n_k, D], `v` [B, KV, n_k, D_v]. The LSE is the natural
        logarithm of the sum of the exponentials of a row's visible logits,
        [B, H, n_q], float64 for float64 `q` and float32 for all others. A row
        without keys gives output 0 and LSE -inf. `inputs` holds every declared input
        as `checks.check_inputs` returns it. With `sequences` each of them is an
        attention of its own; raises `ValueError` where the backend has none for this.
        """
        ...


class Backend(Protocol):
    """One way to run a kernel. Its fields, if it has any, are its options."""

    name: ClassVar[str]

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """Why this backend cannot run the kernel, or None if it can."""
        ...

    def load(self, kernel: Kernel) -> LoadedAttention:
        """Make the kernel callable. Call it only if `refuse` returned None."""
        ...
