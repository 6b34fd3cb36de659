"""What every backend is.

In: a planned kernel. Out: a callable on tensors, or a diagnostic that says why not.
Not its job: checking a call's arguments (`backends.checks`), which is done before a
loaded attention is called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol, runtime_checkable

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
        as `input_checks.check_inputs` returns it. With `sequences` each of them is an
        attention of its own; raises `ValueError` where the backend has none for this.
        """
        ...


@runtime_checkable
class Trainable(LoadedAttention, Protocol):
    """A loaded attention that computes its gradients itself, in three steps.

    `attend` is the sum over keys, `finish` what follows for each row, as PyTorch code
    that autograd goes through, and `gradients` the way back through `attend`. Calling
    it does both first steps at once, and need not keep anything.
    """

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
    ) -> tuple[Tensor, Tensor]:
        """Output [B, H, n_q, D_v] and LSE [B, H, n_q] without sinks and outputs.

        The output has the dtype of `q` or the wider one that was computed in; the LSE
        is as in a call. A row without keys gives 0 and -inf.
        """
        ...

    def finish(
        self,
        out: Tensor,
        lse: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
    ) -> tuple[Tensor, Tensor]:
        """What `attend` gave after sinks and outputs, in the dtype of `out`."""
        ...

    def gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        d_out: Tensor,
        d_lse: Tensor | None,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
        wanted: Collection[str] = (),
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The gradients of `q`, `k`, `v` and of the inputs in `wanted`, shaped like them.

        `out` and `lse` are what `attend` gave, `d_out` and `d_lse` their gradients.
        `wanted` names floating inputs that a `score` reads.
        """
        ...

    def refuse_gradients(self, wanted: Collection[str]) -> Diagnostic | None:
        """Why it has no gradients, or none of the inputs in `wanted`; None if it has."""
        ...


@runtime_checkable
class Planner(Protocol):
    """A loaded attention with a planning phase of its own for its selections.

    One that has none gets that of `backends.planner`, in PyTorch.
    """

    def plan_tables(
        self,
        q: Tensor,
        k: Tensor,
        *,
        scale: float,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor] = NO_INPUTS,
    ) -> dict[str, Tensor]:
        """The table of each selection, bool [B, H, ...]; see `planner.plan_tables`."""
        ...


@runtime_checkable
class Plain(LoadedAttention, Protocol):
    """A loaded attention in PyTorch alone, which autograd goes through as it is."""

    is_plain: ClassVar[bool]


class Backend(Protocol):
    """One way to run a kernel. Its fields, if it has any, are its options."""

    name: ClassVar[str]

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """Why this backend cannot run the kernel, or None if it can."""
        ...

    def load(self, kernel: Kernel) -> LoadedAttention:
        """Make the kernel callable. Call it only if `refuse` returned None."""
        ...
