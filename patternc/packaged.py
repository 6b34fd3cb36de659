"""A package as an attention of this process: the operators run its kernels.

In: the path of a package. Out: a `patternc.Attention` whose kernels on a GPU are the
package's, which need neither Triton nor a C compiler; its program has the name that
graphs exported with `patternc.load` hold. Not its job: running without the rest of
patternc (`patternc.runtime` does).

The program's text in the package is compiled again up to its schedule: what a graph asks
for by name is a hash of that.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from patternc import driver
from patternc.attention import Attention
from patternc.backends.protocol import NO_INPUTS
from patternc.backends.sequences import Sequences, named
from patternc.diagnostics import Diagnostic
from patternc.ops.program import add_program
from patternc.runtime.attention import PackagedAttention
from patternc.runtime.package import read_package
from patternc.source import Source, Span

BACKEND = "triton"
"""The backend that a package stands for."""


@dataclass(frozen=True, slots=True)
class PackagedProgram:
    """A `Trainable` that runs a package; `span` is the attention's place."""

    attention: PackagedAttention
    span: Span

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
        """See `LoadedAttention`. Raises `PackageError` for what was not built."""
        given = {**params, **named(sequences), **self._declared(inputs)}
        own = self.attention
        out, lse = own.forward(q, k, v, scale=scale, q_offset=q_offset, **given)
        return (out, lse) if return_lse else out

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
        """See `Planner`."""
        found = self.attention.plan(q, k, scale=scale, q_offset=q_offset, **params)
        return found.tables

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
        """See `Trainable`."""
        given = {**params, **self._declared(inputs)}
        return self.attention.attend(q, k, v, scale=scale, q_offset=q_offset, **given)

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
        """See `Trainable`."""
        given = {**params, **self._declared(inputs)}
        return self.attention.finish(out, lse, v, q_offset=q_offset, **given)

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
        """See `Trainable`."""
        given: dict[str, Any] = {"scale": scale, "q_offset": q_offset, **params}
        given |= self._declared(inputs)
        site = (q, k, v, out, lse, d_out, d_lse, tuple(wanted))
        dq, dk, dv, found = self.attention.gradients(*site, **given)
        places = self._batch_axes()
        return dq, dk, dv, {x: y.movedim(places[x], 0) for x, y in found.items()}

    def _declared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs shaped as they are declared."""
        return {
            name: tensor.movedim(0, self._batch_axes().get(name, 0))
            for name, tensor in inputs.items()
        }

    def _batch_axes(self) -> dict[str, int]:
        """Where the batch axis of each input is declared to be."""
        kinds = {
            item.name: [axis.kind for axis in item.axes]
            for item in self.attention.manifest.facts.inputs
        }
        return {x: y.index("b") if "b" in y else 0 for x, y in kinds.items()}

    def refuse_gradients(self, wanted: Collection[str]) -> Diagnostic | None:
        """What a package without gradients says."""
        if self.attention.manifest.backward:
            return None
        message = f"the package of `{self.attention.name}` has no gradients"
        advice = "build it with --backward, or call it under torch.no_grad()"
        return Diagnostic("unsupported", message, self.span, "built without", advice)


def load(path: str | os.PathLike[str]) -> Attention:
    """The attention of a package, known to the operators from now on.

    Where the process has loaded the same program from its `.pat` file before, that one
    stays. Raises `OSError`, `PackageError`, and `PatternError` for a program that this
    version of patternc refuses.
    """
    return attention_of(PackagedAttention(read_package(path)))


def attention_of(packaged: PackagedAttention) -> Attention:
    """The same of a package that was read."""
    told = packaged.manifest.source
    source = Source(told.file, told.text)
    trace = driver.trace_source(source, told.entry, dict(told.values))
    attention = _loaded(packaged, trace)
    if packaged.dense is not None:
        other = driver.dense_trace(trace)
        assert other is not None, "a program with another one allows it"
        attention._dense.append(_loaded(packaged.dense, other))
    return attention


def _loaded(packaged: PackagedAttention, trace: driver.Trace) -> Attention:
    attention = Attention(trace, BACKEND)
    own = PackagedProgram(packaged, trace.kernel.attention.span)
    attention._loaded[BACKEND] = add_program(trace.kernel, BACKEND, own)
    return attention
