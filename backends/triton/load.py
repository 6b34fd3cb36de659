"""From a kernel to a callable.

In: a planned kernel. Out: its module, written to a store, imported, and ready to be
called. Not its job: the module's text (`emit`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch import Tensor

from patternc.backends.protocol import NO_INPUTS
from patternc.backends.sequences import Form, Sequences
from patternc.backends.triton.emit import emit
from patternc.backends.triton.refusal import gradient_refusal
from patternc.diagnostics import Diagnostic
from patternc.ir.floats import float_reads
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
        attention = kernel.attention
        text = emit(kernel, attention.span.source.text, attention.name)
        module = import_file(self.store.put(text, attention.name, ".py"))
        axes = {
            item.name: [axis.kind for axis in item.axes].index(AxisKind.BATCH)
            for item in attention.inputs
            if any(axis.kind is AxisKind.BATCH for axis in item.axes)
        }
        return TritonAttention(module, kernel, axes)


@dataclass(frozen=True, slots=True)
class TritonAttention:
    """A `LoadedAttention` that runs a generated module, forward and backward.

    `batch_axes` says where the inputs that have a batch axis of their own declare it.
    A training step is `attend`, then `finish` under autograd, then `gradients` of what
    `attend` gave.
    """

    module: ModuleType
    kernel: Kernel
    batch_axes: Mapping[str, int] = field(default_factory=dict)

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
        named: dict[str, Tensor | int] = {}
        if sequences is not None:
            named["lengths"] = sequences.numbers
            if sequences.form is Form.PACKED:
                named = {"cu_seqlens": sequences.numbers}
                named["max_seqlen"] = sequences.longest
        forward: Forward = self.module.forward
        return forward(
            q,
            k,
            v,
            scale=scale,
            q_offset=q_offset,
            return_lse=return_lse,
            **named,
            **params,
            **self._declared(inputs),
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
    ) -> tuple[Tensor, Tensor]:
        """Output [B, H, n_q, D] and LSE [B, H, n_q], before sinks and output clauses.

        Raises as a call does. No gradient may be asked for: it is for the inside of an
        autograd function.
        """
        attend: Callable[..., tuple[Tensor, Tensor]] = self.module.attend
        declared = self._declared(inputs)
        return attend(q, k, v, scale=scale, q_offset=q_offset, **params, **declared)

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
        wanted: Sequence[str] = (),
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """dq, dk, dv and the gradients of the wanted inputs that scores read.

        `out` and `lse` are those of `attend`, `d_out` and `d_lse` (None: zero) what
        autograd has for them. Gradients are shaped as what they belong to; those of
        inputs as `inputs` has them. A row without keys has gradient 0, whatever `d_lse`
        is there. The same bits in every run. Raises as a call does, and `ValueError`
        for a wanted input that `refuse_gradients` refuses or that no score reads.
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

    def refuse_gradients(self, wanted: Sequence[str]) -> Diagnostic | None:
        """The clause that has no gradient for one of the wanted inputs, or None."""
        return gradient_refusal(self.kernel, wanted)

    def score_inputs(self) -> tuple[str, ...]:
        """The floating inputs that scores read: those that `gradients` can be asked."""
        scores = self.kernel.attention.scores
        names = (read.table for case in scores for read in float_reads(case.score))
        return tuple(dict.fromkeys(names))

    def _declared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The module checks the inputs again, shaped as they are declared."""
        return {
            name: tensor.movedim(0, self.batch_axes.get(name, 0))
            for name, tensor in inputs.items()
        }


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
