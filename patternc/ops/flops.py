"""How many floating point operations a call makes, for PyTorch's FLOP counter.

In: a program and the sizes of a call. Out: a number. Not its job: time.

Counted are the multiply-adds of the matrix products, two operations each, over every
pair in a tile that the schedule visits, visible or not, clipped to the call: what a
kernel computes, and not what the mask alone would need. Forward, a pair costs a
product over D and one over D_v; backward, three over D and two over D_v, the weights
computed again included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from patternc.backends.inputs import element_inputs
from patternc.ir.evaluate import Tables
from patternc.ops.program import Program, Site
from patternc.plan.expand import head_classes, live_tiles
from patternc.plan.kernel import TileCover


def forward_flops(
    program: Program, q: Tensor, v: Tensor, inputs: Sequence[Tensor], site: Site
) -> int:
    """Those of a call; `q` is [B, H, n_q, D], `v` is [B, KV, n_k, D_v]."""
    pairs = visited_pairs(program, q, v, inputs, site)
    return 2 * pairs * (q.shape[3] + v.shape[3])


def backward_flops(
    program: Program, q: Tensor, v: Tensor, inputs: Sequence[Tensor], site: Site
) -> int:
    """Those of its gradients."""
    pairs = visited_pairs(program, q, v, inputs, site)
    return 2 * pairs * (3 * q.shape[3] + 2 * v.shape[3])


def visited_pairs(
    program: Program, q: Tensor, v: Tensor, inputs: Sequence[Tensor], site: Site
) -> int:
    """Pairs in visited tiles, of all heads and batch elements.

    Raises `ValueError` for tensors without values where the mask or the order reads
    inputs.
    """
    items = program.attention.inputs
    named = {
        item.name: tensor
        for item, tensor in zip(items, inputs, strict=True)
        if not tensor.dtype.is_floating_point
    }
    for name, tensor in named.items():
        if isinstance(tensor, FakeTensor) or tensor.is_meta:
            raise ValueError(
                f"{program.name}: the tiles depend on the values of `{name}`, so count"
                " operations with real tensors"
            )
    batched = any(tensor.shape[0] != 1 for tensor in named.values())
    elements, copies = (q.shape[0], 1) if batched else (1, q.shape[0])
    pairs = 0
    for element in range(elements):
        tables = element_inputs(named, element).tables if named else {}
        pairs += _pairs(program, q.shape[2], v.shape[2], site, tables)
    return pairs * copies


def _pairs(program: Program, n_q: int, n_k: int, site: Site, tables: Tables) -> int:
    params = {
        item.name: value
        for item, value in zip(program.attention.params, site.params, strict=True)
    }
    found = 0
    for cover in program.kernel.covers:
        for heads in head_classes(cover):
            size = (n_q, n_k, site.q_offset)
            own = _head_pairs(program, cover, heads[0], size, params, tables)
            found += own * len(heads)
    return found


def _head_pairs(
    program: Program,
    cover: TileCover,
    head: int,
    size: tuple[int, int, int],
    params: Mapping[str, int],
    tables: Tables,
) -> int:
    n_q, n_k, q_offset = size
    schedule = program.kernel.schedule
    tiles = live_tiles(cover, schedule, head, n_q, n_k, q_offset, params, tables)
    first, start = tiles.qt * schedule.block_q, tiles.kt * schedule.block_k
    last = np.minimum(first + schedule.block_q, q_offset + n_q)
    rows = last - np.maximum(first, q_offset)
    keys = np.minimum(start + schedule.block_k, n_k) - start
    return int((rows * keys).sum())
