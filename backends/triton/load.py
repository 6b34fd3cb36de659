"""From a kernel to a callable.

In: a planned kernel. Out: its module, written to a store, imported, and ready to be
called. Not its job: the module's text (`emit`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patternc.backends.hopper.route import Route
from patternc.backends.planner import plan_tables
from patternc.backends.protocol import NO_INPUTS
from patternc.backends.sequences import Sequences, named
from patternc.backends.triton import planner
from patternc.backends.triton.emit import emit
from patternc.backends.triton.fused import Fused, fused_of
from patternc.backends.triton.ready import getting_ready
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import AxisKind
from patternc.plan.kernel import Kernel
from patternc.store import Store, default_store

Forward = Callable[..., Tensor | tuple[Tensor, Tensor]]
Backward = Callable[..., tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class TritonBackend:
    """Kernels for NVIDIA sm_80 and later and for AMD; elsewhere in the interpreter."""

    name: ClassVar[str] = "triton"
    store: Store = field(default_factory=default_store)

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """Nothing: every program has a kernel. What a call asks for is checked there."""
        return None

    def load(self, kernel: Kernel) -> TritonAttention:
        """Write the kernel's module and import it. Raises `OSError`."""
        return load_module(kernel, None, self.store)


def load_module(kernel: Kernel, hopper: Route | None, store: Store) -> TritonAttention:
    """Write the module of a kernel, with one for Hopper or without, and import it.

    Raises `OSError`.
    """
    attention = kernel.attention
    with getting_ready():
        text = emit(kernel, attention.span.source.text, attention.name, hopper)
        module = import_file(store.put(text, attention.name, ".py"))
    axes = {
        item.name: [axis.kind for axis in item.axes].index(AxisKind.BATCH)
        for item in attention.inputs
        if any(axis.kind is AxisKind.BATCH for axis in item.axes)
    }
    return TritonAttention(module, kernel, axes)


@dataclass(frozen=True, slots=True)
class TritonAttention:
    """A `LoadedAttention` that runs a generated module, forward and backward.

    `batch_axes` says where the inputs that have a batch axis of their own declare it,
    `fused` which maps of selections have kernels.
    A training step is `attend`, then `finish` under autograd, then `gradients` of what
    `attend` gave.
    """

    module: ModuleType
    kernel: Kernel
    batch_axes: Mapping[str, int] = field(default_factory=dict)
    fused: Fused = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fused", fused_of(self.kernel.attention))

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
        """See `LoadedAttention`. Also raises for a head size, dtype or device that
        Triton's kernel does not take: `ValueError` or `TypeError`.
        """
        if sequences is not None and _needs_gradient(q, k, v):
            told = (scale, tuple(params.items()), sequences)
            found = SequencesStep.apply(q, k, v, self, *told)  # type: ignore[no-untyped-call]
            output, lse = found
            return (output, lse) if return_lse else output
        forward: Forward = self.module.forward
        return forward(
            q,
            k,
            v,
            scale=scale,
            q_offset=q_offset,
            return_lse=return_lse,
            **named(sequences),
            **params,
            **self._declared(inputs),
        )

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
        """See `Planner`. Off a GPU it is PyTorch's planner, which is faster there."""
        attention = self.kernel.attention
        plan = plan_tables
        if q.is_cuda:
            plan = partial(planner.plan_tables, self.module, self.fused)
        return plan(
            attention,
            q,
            k,
            scale=scale,
            q_offset=q_offset,
            params=params,
            inputs=inputs,
        )

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
        sequences: Sequences | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output [B, H, n_q, D_v] and LSE [B, H, n_q], before sinks and output clauses.

        Raises as a call does. No gradient may be asked for: it is for the inside of an
        autograd function.
        """
        attend: Callable[..., tuple[Tensor, Tensor]] = self.module.attend
        return attend(
            q,
            k,
            v,
            scale=scale,
            q_offset=q_offset,
            **named(sequences),
            **params,
            **self._declared(inputs),
        )

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
        sequences: Sequences | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """dq, dk, dv and the gradients of the wanted inputs that scores read.

        `out` and `lse` are those of `attend`, `d_out` and `d_lse` (None: zero) what
        autograd has for them. Gradients are shaped as what they belong to; those of
        inputs as `inputs` has them. A row without keys has gradient 0, whatever `d_lse`
        is there. The same bits in every run. Raises as a call does, and `ValueError`
        for a wanted input that no score reads.
        """
        backward: Backward = self.module.gradients
        dq, dk, dv, found = backward(
            q,
            k,
            v,
            out,
            lse,
            d_out,
            d_lse,
            tuple(wanted),
            scale=scale,
            q_offset=q_offset,
            **named(sequences),
            **params,
            **self._declared(inputs),
        )
        return dq, dk, dv, found

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
        """What a call gives, from what `attend` gave: plain PyTorch under autograd.

        Differentiable by `out`, `lse`, `v` and the inputs of sinks and output clauses.
        """
        if not hasattr(self.module, "finish"):  # the program has neither
            return out, lse
        finish: Callable[..., tuple[Tensor, Tensor]] = self.module.finish
        declared = self._declared(inputs)
        return finish(out, lse, v, q_offset=q_offset, **params, **declared)

    def refuse_gradients(self, wanted: Collection[str]) -> Diagnostic | None:
        """Nothing: every input that a score reads has a gradient."""
        return None

    def _declared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The module checks the inputs again, shaped as they are declared."""
        return {
            name: tensor.movedim(0, self.batch_axes.get(name, 0))
            for name, tensor in inputs.items()
        }


class SequencesStep(torch.autograd.Function):
    """A call with sequences; the operators, whose schema has none, take all others."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attention: TritonAttention,
        scale: float,
        params: tuple[tuple[str, int], ...],
        sequences: Sequences,
    ) -> tuple[Tensor, Tensor]:
        """Output and LSE. Raises `ValueError` for a program without these gradients."""
        if hasattr(attention.module, "finish"):
            advice = "call it under torch.no_grad(), or use the tiled backend"
            raise ValueError(
                f"{attention.module.NAME}: `lengths`, `cu_seqlens`: expected no gradient"
                f" to be asked for, as the program has sinks or outputs; {advice}"
            )
        output, lse = attention.attend(
            q, k, v, scale=scale, q_offset=0, params=dict(params), sequences=sequences
        )
        ctx.save_for_backward(q, k, v, output, lse)
        ctx.set_materialize_grads(False)
        ctx.told = attention, scale, params, sequences
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_lse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k` and `v`."""
        attention, scale, params, sequences = ctx.told
        q, k, v, output, lse = ctx.saved_tensors
        dq, dk, dv, _ = attention.gradients(
            q,
            k,
            v,
            output,
            lse,
            torch.zeros_like(output) if d_out is None else d_out,
            d_lse,
            scale=scale,
            q_offset=0,
            params=dict(params),
            sequences=sequences,
        )
        return dq, dk, dv, None, None, None, None


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def import_file(path: Path) -> ModuleType:
    """Import a generated module, once for each path."""
    name = f"patternc_module_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
