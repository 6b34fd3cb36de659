"""Seeded tensors for a call of any attention.

In: an attention, the sizes of a call, a seed. Out: q, k, v and a tensor for each
declared input, with values that a program of its kind can use: documents for sorted
integers, three blocks in ten for tables of truth values, small numbers. Not its job:
comparing what comes out (`patternc.verify`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patternc.backends.declared import given_by_callers
from patternc.backends.input_checks import axis_size
from patternc.backends.key_ranges import CallSizes, places_of
from patternc.backends.planner import plan_tables
from patternc.backends.protocol import LoadedAttention
from patternc.backends.rows import reads_own_value, unnormalised_heads
from patternc.ir.nodes import Attention, AxisKind, Element, Input

MOST_PAIRS = 2**27
"""Logits of one batch element, all heads together, that are computed densely."""

DOCUMENTS = 4
"""How many documents a sorted input has, or about that."""


@dataclass(frozen=True, slots=True)
class CallSize:
    """The sizes of a call; D_v is `head_dim` unless `value_dim` is given."""

    batch: int
    n_q: int
    n_k: int
    q_offset: int
    head_dim: int
    value_dim: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The tensors of one call, float64 that hold values of a narrower dtype.

    `inputs` have a batch axis of 1 or B. `has_lse` says whether the LSE is defined.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    q_offset: int
    params: Mapping[str, int]
    inputs: Mapping[str, Tensor]
    has_lse: bool

    def run(self, attention: LoadedAttention, dtype: torch.dtype) -> list[Tensor]:
        """The output, and the LSE if there is one, computed in `dtype`.

        As float64 on the CPU. Floating inputs are float64 for float64, else float32.
        """
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        found = attention(
            self.q.to(dtype),
            self.k.to(dtype),
            self.v.to(dtype),
            scale=self.scale,
            q_offset=self.q_offset,
            params=self.params,
            return_lse=self.has_lse,
            inputs={
                name: item.to(wide) if item.dtype.is_floating_point else item
                for name, item in self.inputs.items()
            },
        )
        parts = [found] if isinstance(found, Tensor) else [*found]
        return [part.double().cpu() for part in parts]


def sizes_for(
    attention: Attention,
    sizes: Sequence[tuple[int, int]],
    q_offset: int | None = None,
) -> list[tuple[int, int]]:
    """The sizes (n_q, n_k) that an attention can be called with, made from some.

    A layout has one length: n_k becomes that, n_q at most that, and all rows together
    are one more size, unless that is too much for a dense definition. Where an output
    reads a query's own value row, every query must be among the keys. `q_offset` is
    n_k - n_q if it is None.
    """
    found = list(sizes)
    if attention.layout is not None:
        size = attention.layout.size
        rows = [min(n_q, size) for n_q, _ in sizes]
        if attention.heads * size * size <= MOST_PAIRS:
            rows.append(size)
        found = [(n_q, size) for n_q in dict.fromkeys(rows)]
    if any(reads_own_value(case.output) for case in attention.outputs):
        found = [
            (n_q, n_k)
            for n_q, n_k in found
            if n_q <= n_k and (q_offset is None or 0 <= q_offset <= n_k - n_q)
        ]
    return found


def sample(
    attention: Attention,
    size: CallSize,
    dtype: torch.dtype,
    device: str,
    params: Mapping[str, int],
    seed: int,
) -> Sample:
    """Standard normal q, k and v, rounded to `dtype`; the same on every device."""
    generator = torch.Generator().manual_seed(seed)

    def normal(heads: int, length: int, dim: int) -> Tensor:
        shape = (size.batch, heads, length, dim)
        drawn = torch.randn(shape, generator=generator)
        return drawn.to(dtype).double().to(device)

    q, k, v = (
        normal(attention.heads, size.n_q, size.head_dim),
        normal(attention.kv_heads, size.n_k, size.head_dim),
        normal(attention.kv_heads, size.n_k, size.value_dim or size.head_dim),
    )
    drawn = _inputs(attention, size, generator)
    inputs = {name: item.to(device) for name, item in drawn.items()}
    scale = 1 / math.sqrt(size.head_dim)
    if attention.selections:
        params, inputs = with_plan(
            attention, q, k, scale, size.q_offset, params, inputs
        )
    return Sample(
        q,
        k,
        v,
        scale,
        size.q_offset,
        params,
        inputs,
        not unnormalised_heads(attention),
    )


def with_plan(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    scale: float,
    q_offset: int,
    params: Mapping[str, int],
    inputs: Mapping[str, Tensor],
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """All parameters and inputs of a call: a plan's beside those of a caller.

    Both in the order of declaration. Budgets are cut to what there is, and not checked.
    """
    tables = plan_tables(
        attention,
        q,
        k,
        scale=scale,
        q_offset=q_offset,
        params=params,
        inputs=inputs,
    )
    sizes = CallSizes(q.shape[2], k.shape[2], q_offset)
    every = {**params, **places_of(attention.selections, sizes, params)}
    values = {item.name: every[item.name] for item in attention.params}
    return values, {**inputs, **tables}


def _inputs(
    attention: Attention, size: CallSize, generator: torch.Generator
) -> dict[str, Tensor]:
    """Every second input has values for each batch element, as those over `b` have."""
    counts = {"b": size.batch, "h": attention.heads, "g": attention.kv_heads}
    counts |= {"q": size.q_offset + size.n_q, "k": size.n_k}
    declared, found = given_by_callers(attention), {}
    for number, item in enumerate(attention.inputs):
        if item.name not in declared:
            continue
        axes = declared[item.name][1]
        sizes = [axis_size(axis, counts) for axis in axes if axis[0] != "b"]
        is_own = any(axis.kind is AxisKind.BATCH for axis in item.axes)
        elements = size.batch if is_own or number % 2 == 0 else 1
        found[item.name] = _values(item, [elements, *sizes], size.n_k, generator)
    return found


def _values(
    item: Input, shape: list[int], n_k: int, generator: torch.Generator
) -> Tensor:
    chances = torch.rand(shape, generator=generator, dtype=torch.float64)
    match item.element:
        case Element.FLOAT:
            return (chances - 0.5).float().double()
        case Element.BOOL:
            return chances < 0.3
        case Element.INT if item.is_sorted and len(shape) > 1:
            starts = chances < DOCUMENTS / max(shape[-1], DOCUMENTS)
            return starts.cumsum(-1)
        case Element.INT:
            is_position = any(
                axis.kind in (AxisKind.QUERY, AxisKind.KEY) for axis in item.axes
            )
            # Labels and distances of tokens are few; a number alone may be a length.
            most = min(n_k, 32) if is_position else n_k
            return (chances * (most + 1)).long()
