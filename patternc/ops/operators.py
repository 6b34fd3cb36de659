"""The two operators: `patternc::attention` and `patternc::attention_backward`.

In: tensors, the name of a program, what a call says. Out: what the program gives; for
PyTorch also the shapes without values, a rule for vmap and a number of operations.
Not its job: autograd (`ops.function`), the programs (`ops.program`).

One pair of operators serves every program: which one is an argument, so that a policy
(selective checkpointing, partitioning) names two operators and no more. They are
defined with `Library`, and autograd lies on top: of the ways that PyTorch has, only
this one passes torch.func's transforms as well as compile, export and opcheck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from patternc.backends.reference import working_dtype
from patternc.ops import flops
from patternc.ops.program import Kept, Site, program_of

Forward = tuple[Tensor, Tensor, Tensor, Tensor]
"""A program's `Kept`, an empty tensor in the place of what there is not."""

LIBRARY = torch.library.Library("patternc", "DEF")  # type: ignore[no-untyped-call]
_CALL = "str program, SymInt[] params, SymInt q_offset, float scale"
_FORWARD = f"""attention(
    Tensor q, Tensor k, Tensor v, Tensor[] inputs, {_CALL}, bool return_lse, bool keep
) -> (Tensor, Tensor, Tensor, Tensor)"""
_BACKWARD = f"""attention_backward(
    Tensor? d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor[] inputs,
    Tensor out, Tensor lse, {_CALL}, int[] wanted
) -> Tensor[]"""
for _schema in (_FORWARD, _BACKWARD):
    LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]

_AUTOGRAD_KEYS = (
    torch._C.DispatchKey.AutogradFunctionality,
    torch._C.DispatchKey.AutogradOther,
    torch._C.DispatchKey.AutogradNestedTensor,
    torch._C.DispatchKey.ADInplaceOrView,
)
"""What `_AutoDispatchBelowAutograd` excludes."""


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
    return_lse: bool,
    keep: bool,
) -> Forward:
    found, site = program_of(program), Site(tuple(params), q_offset, scale)
    results: Kept
    if keep:
        results = found.run_for_gradients(q, k, v, inputs, site)
    else:
        results = *found.run(q, k, v, inputs, site, return_lse), None, None
    wide = working_dtype(q.dtype)
    output, *others = results
    filled = (q.new_empty((0,), dtype=wide) if x is None else x for x in others)
    return output, *filled  # type: ignore[return-value]


def _attention_backward(
    d_out: Tensor | None,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    out: Tensor,
    lse: Tensor,
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
    wanted: Sequence[int],
) -> list[Tensor]:
    found, site = program_of(program), Site(tuple(params), q_offset, scale)
    with _autograd_included():
        return found.gradients(q, k, v, inputs, (out, lse), d_out, d_lse, site, wanted)


def _autograd_included() -> AbstractContextManager[None]:
    """Let autograd record again below autograd, where a compiled graph runs.

    What an operator computes in PyTorch may then use it, after `torch.enable_grad`.
    """
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in _AUTOGRAD_KEYS:
        excluded = excluded.remove(key)
    included = torch._C._dispatch_tls_local_include_set()
    guard: AbstractContextManager[None] = torch._C._ForceDispatchKeyGuard(
        included, excluded
    )
    return guard


def _attention_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
    return_lse: bool,
    keep: bool,
) -> Forward:
    rows, wide = q.shape[:3], working_dtype(q.dtype)
    none = q.new_empty((0,), dtype=wide), q.new_empty((0,), dtype=wide)
    output = q.new_empty((*rows, v.shape[3]))
    lse = q.new_empty(rows if keep or return_lse else (0,), dtype=wide)
    if keep and program_of(program).keeps_core:
        core = q.new_empty((*rows, v.shape[3]))
        return output, lse, core, q.new_empty(rows, dtype=wide)
    return output, lse, *none


def _attention_backward_shapes(
    d_out: Tensor | None,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    out: Tensor,
    lse: Tensor,
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
    wanted: Sequence[int],
) -> list[Tensor]:
    sources = (q, k, v, *(inputs[number] for number in wanted))
    return [x.new_empty(x.shape) for x in sources]


def _attention_vmap(
    info: Any,
    in_dims: Sequence[Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    *rest: Any,
) -> tuple[Forward, tuple[int, ...]]:
    """The mapped axis becomes a part of the batch: q, k and v are spread over it."""
    fold = Fold.of(info.batch_size, q, in_dims[0])
    tensors = [fold.rows(x, dim) for x, dim in zip((q, k, v), in_dims[:3], strict=True)]
    own = [fold.input(x, dim, False) for x, dim in zip(inputs, in_dims[3], strict=True)]
    found = torch.ops.patternc.attention(*tensors, own, *rest)
    parts = [fold.back(x) if x.dim() > 1 else x.expand(fold.size, 0) for x in found]
    return tuple(parts), (0,) * len(parts)  # type: ignore[return-value]


def _attention_backward_vmap(
    info: Any,
    in_dims: Sequence[Any],
    d_out: Tensor | None,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    out: Tensor,
    lse: Tensor,
    *rest: Any,
) -> tuple[list[Tensor], list[int]]:
    """As above; an input that wants a gradient has one for each place of the axis."""
    fold, wanted = Fold.of(info.batch_size, q, in_dims[2]), rest[-1]
    given = (d_out, d_lse, q, k, v, out, lse)
    dims = (*in_dims[:5], in_dims[6], in_dims[7])
    rows = [
        None if x is None else fold.rows(x, dim)
        for x, dim in zip(given, dims, strict=True)
    ]
    own = [
        fold.input(x, dim, number in wanted)
        for number, (x, dim) in enumerate(zip(inputs, in_dims[5], strict=True))
    ]
    found = torch.ops.patternc.attention_backward(*rows[:5], own, *rows[5:], *rest)
    parts = [fold.back(x) for x in found]
    for place, number in enumerate(wanted, start=3):
        mapped, dim = inputs[number], in_dims[5][number]
        length = mapped.shape[0] if dim is None else mapped.movedim(dim, 0).shape[1]
        if length == 1:
            parts[place] = parts[place].sum(1, keepdim=True)
    return parts, [0] * len(parts)


@dataclass(frozen=True, slots=True)
class Fold:
    """A mapped axis of some size in front of a batch."""

    size: int
    batch: int

    @staticmethod
    def of(size: int, q: Tensor, dim: int | None) -> Fold:
        """`q` has the mapped axis at `dim`, or not at all."""
        return Fold(size, (q if dim is None else q.movedim(dim, 0)[0]).shape[0])

    def rows(self, x: Tensor, dim: int | None) -> Tensor:
        """[B, ...] with or without the mapped axis -> [size * B, ...]."""
        first = x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
        return first.expand(self.size, *first.shape[1:]).flatten(0, 1)

    def input(self, x: Tensor, dim: int | None, wanted: bool) -> Tensor:
        """The same for an input, whose batch axis may be 1: if it can, it stays."""
        if dim is None and x.shape[0] == 1 and not wanted:
            return x
        first = x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
        return first.expand(self.size, self.batch, *first.shape[2:]).flatten(0, 1)

    def back(self, x: Tensor) -> Tensor:
        """[size * B, ...] -> [size, B, ...]."""
        return x.view(self.size, self.batch, *x.shape[1:])


def _attention_flops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
    *rest: object,
    **results: object,
) -> int:
    site = Site(tuple(params), q_offset, scale)
    return flops.forward_flops(program_of(program), q, v, inputs, site)


def _attention_backward_flops(
    d_out: Tensor | None,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    out: Tensor,
    lse: Tensor,
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
    *rest: object,
    **results: object,
) -> int:
    site = Site(tuple(params), q_offset, scale)
    return flops.backward_flops(program_of(program), q, v, inputs, site)


def _register(
    name: str,
    run: Callable[..., Any],
    shapes: Callable[..., Any],
    vmap: Callable[..., Any],
    count: Callable[..., int],
) -> None:
    full = f"patternc::{name}"
    own = torch.no_grad()(run)
    LIBRARY.impl(name, own, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(full, shapes, lib=LIBRARY)
    torch.library.register_vmap(full, vmap, lib=LIBRARY)
    packet = getattr(torch.ops.patternc, name)
    register_flop_formula([packet], get_raw=True)(count)


_register("attention", _attention, _attention_shapes, _attention_vmap, _attention_flops)
_register(
    "attention_backward",
    _attention_backward,
    _attention_backward_shapes,
    _attention_backward_vmap,
    _attention_backward_flops,
)

attention = torch.ops.patternc.attention.default
"""Output, LSE, and what a backward pass keeps: see `ops.program.Kept`."""

attention_backward = torch.ops.patternc.attention_backward.default
"""The gradients of `q`, `k`, `v` and of the wanted inputs."""
