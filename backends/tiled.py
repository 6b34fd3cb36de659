"""The tile schedule in plain PyTorch: live tiles only, any device, with autograd.

In: a planned kernel and tensors. Out: what the reference gives, at a cost in time and
memory that follows the live tiles. Not its job: finding the tiles (`plan.expand`) and
grouping them (`backends.chunks`), sums over them (`backends.tile_sums`), output rows
(`backends.rows`).

A sink joins after the sums: all that it needs is the LSE. float64 is computed in
float64, everything else in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patternc.backends import tile_sums
from patternc.backends.chunks import Call, ChunkCache, Group, digests_of
from patternc.backends.inputs import element_inputs
from patternc.backends.protocol import NO_INPUTS
from patternc.backends.reference import working_dtype
from patternc.backends.rows import Invocation, finish_rows
from patternc.backends.sequences import Sequences, by_sequence
from patternc.diagnostics import Diagnostic
from patternc.plan.kernel import Kernel


@dataclass(frozen=True, slots=True)
class TiledBackend:
    """Live tiles only, in plain PyTorch; the default without a GPU."""

    name: ClassVar[str] = "tiled"

    def refuse(self, kernel: Kernel) -> Diagnostic | None:
        """None: every kernel has a tile schedule."""
        return None

    def load(self, kernel: Kernel) -> TiledAttention:
        """The kernel's covers, ready to run."""
        return TiledAttention(kernel)


@dataclass(frozen=True, slots=True)
class TiledAttention:
    """A `Trainable` attention over the covers of a kernel."""

    kernel: Kernel
    cache: ChunkCache = field(default_factory=ChunkCache, compare=False, repr=False)

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
        """See `LoadedAttention`."""
        if sequences is not None:
            output, lse = by_sequence(
                partial(self, scale=scale, q_offset=0, params=params, return_lse=True),
                sequences,
                (q, k, v),
            )
            return (output, lse) if return_lse else output
        wide = working_dtype(q.dtype)
        tensors = (q.to(wide), k.to(wide), v.to(wide))
        floats = _floats(inputs, wide)
        groups = self._groups(q, k, q_offset, params, inputs)
        attention = self.kernel.attention
        needs_lse = return_lse or bool(attention.sinks)
        if torch.is_grad_enabled():
            needs_lse |= any(x.requires_grad for x in (*tensors, *floats.values()))
        with torch.autocast(q.device.type, enabled=False):
            output, lse = _Tiled.apply(  # type: ignore[no-untyped-call]
                *tensors, scale, groups, needs_lse, tuple(floats), *floats.values()
            )
            call = Invocation(attention, scale, q_offset, k.shape[2], params)
            known = {**inputs, **floats}
            output, lse = finish_rows(call, output, lse, tensors[2], known)
        return (output.to(q.dtype), lse) if return_lse else output.to(q.dtype)

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
        """See `Trainable`; the output has the dtype that was computed in."""
        wide = working_dtype(q.dtype)
        groups = self._groups(q, k, q_offset, params, inputs)
        with torch.autocast(q.device.type, enabled=False):
            tensors = (q.to(wide), k.to(wide), v.to(wide))
            return tile_sums.attend(
                *tensors, scale, groups, True, _floats(inputs, wide)
            )

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
        attention = self.kernel.attention
        call = Invocation(attention, 1.0, q_offset, v.shape[2], params)
        with torch.autocast(out.device.type, enabled=False):
            return finish_rows(call, out, lse, v.to(out.dtype), inputs)

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
        wide = working_dtype(q.dtype)
        groups = self._groups(q, k, q_offset, params, inputs)
        floats = _floats(inputs, wide)
        with torch.autocast(q.device.type, enabled=False):
            *found, totals = tile_sums.gradients(
                q.to(wide),
                k.to(wide),
                v.to(wide),
                out.to(wide),
                lse.to(wide),
                d_out.to(wide),
                None if d_lse is None else d_lse.to(wide),
                scale,
                groups,
                floats,
            )
        d_q, d_k, d_v = (x.to(q.dtype) for x in found)
        own = {name: totals[name].to(inputs[name].dtype) for name in wanted}
        return d_q, d_k, d_v, own

    def refuse_gradients(self, wanted: Collection[str]) -> Diagnostic | None:
        """None: every program has gradients."""
        return None

    def _groups(
        self,
        q: Tensor,
        k: Tensor,
        q_offset: int,
        params: Mapping[str, int],
        inputs: Mapping[str, Tensor],
    ) -> tuple[Group, ...]:
        batched = frozenset(n for n, item in inputs.items() if item.shape[0] != 1)
        count = max(1, q.shape[0]) if batched else 1
        tables = [element_inputs(inputs, at).tables for at in range(count)]
        call = Call(
            q.shape[0],
            q.shape[2],
            k.shape[2],
            q_offset,
            tuple(sorted(params.items())),
            q.device,
            batched,
            digests_of(tables),
            sum(table.nbytes for own in tables for table in own.values()),
        )
        return self.cache.groups(self.kernel, call, tables)


class _Tiled(torch.autograd.Function):
    """Output and LSE of all groups of heads; both are differentiable, once."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        groups: tuple[Group, ...],
        needs_lse: bool,
        names: tuple[str, ...],
        *floats: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`q` [B, H, n_q, D], `k` [B, KV, n_k, D], `v` [B, KV, n_k, D_v] -> output
        [B, H, n_q, D_v] and LSE [B, H, n_q].

        `floats` are the floating inputs of those names, with a batch axis.
        """
        inputs = dict(zip(names, floats, strict=True))
        output, lse = tile_sums.attend(q, k, v, scale, groups, needs_lse, inputs)
        ctx.save_for_backward(q, k, v, output, lse, *floats)
        ctx.scale, ctx.groups, ctx.names = scale, groups, names
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: Tensor, grad_lse: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k`, `v` and the floating inputs, shaped like them."""
        q, k, v, output, lse, *floats = ctx.saved_tensors
        inputs = dict(zip(ctx.names, floats, strict=True))
        *found, totals = tile_sums.gradients(
            q, k, v, output, lse, grad_output, grad_lse, ctx.scale, ctx.groups, inputs
        )
        return *found, None, None, None, None, *totals.values()


def _floats(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The floating inputs, in the dtype to compute in."""
    return {
        name: item.to(dtype)
        for name, item in inputs.items()
        if item.dtype.is_floating_point
    }
