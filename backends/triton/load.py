"""From a kernel to a callable.

In: a planned kernel. Out: its module, written to a store, imported, and ready to be
called. Not its job: the module's text (`emit`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch import Tensor

from patternc.backends.protocol import NO_INPUTS
from patternc.backends.sequences import Form, Sequences
from patternc.backends.triton.emit import emit
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import AxisKind
from patternc.plan.kernel import Kernel
from patternc.store import Store, default_store

Forward = Callable[..., Tensor | tuple[Tensor, Tensor]]


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
        return TritonAttention(module.forward, axes)


@dataclass(frozen=True, slots=True)
class TritonAttention:
    """A `LoadedAttention` that runs a generated module's `forward`.

    `batch_axes` says where the inputs that have a batch axis of their own declare it.
    """

    forward: Forward
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
        # `forward` checks the inputs again, shaped as they are declared.
        declared = {
            name: tensor.movedim(0, self.batch_axes.get(name, 0))
            for name, tensor in inputs.items()
        }
        named: dict[str, Tensor | int] = {}
        if sequences is not None:
            named["lengths"] = sequences.numbers
            if sequences.form is Form.PACKED:
                named = {"cu_seqlens": sequences.numbers}
                named["max_seqlen"] = sequences.longest
        return self.forward(
            q,
            k,
            v,
            scale=scale,
            q_offset=q_offset,
            return_lse=return_lse,
            **named,
            **params,
            **declared,
        )


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
