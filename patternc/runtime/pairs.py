"""The gradients of inputs that scores read at pairs of a query and a key.

In: what tiles have summed up for a package's kernels, formulas of the manifest. Out: the
sums, added where the elements were read, as the `add_pair_sums` of a generated module
does. Not its job: room for the sums, adding itself (`host`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .data import PairRead
from .tensors import Value, tensor_value


def add_pair_sums(
    host: Any,
    reads: tuple[PairRead, ...],
    sums: list[Tensor],
    part: tuple[int, int, int, int],
    first_q_tile: int,
    n_k_tiles: int,
    n_k: int,
    values: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    totals: Mapping[str, Tensor],
    lists: Any,
) -> None:
    """Add what the tiles of a part have stored to the gradients of inputs.

    `totals` are float32, shaped as `inputs`; `lists` are those of tiles with an order, or
    None.
    """
    tile, _, first_b, _ = part
    first_tile, device = first_q_tile + tile, sums[0].device
    named: dict[str, Value] = {f"p_{name}": value for name, value in values.items()}
    for at, read in enumerate(reads):
        if read.table not in totals:
            continue
        parts = [torch.arange(head, head + 1, device=device) for head in read.heads]
        heads = torch.cat(parts)
        h, total = heads[:, None, None], totals[read.table]
        shared = not read.reads_data and len(total) == 1
        shared = shared and (lists is None or not read.has_order)
        own = sums[at] if len(heads) == host.HEADS else sums[at][:, heads]
        kind = host.PAIR_SUMS[at]
        q, k, gradient = host.gathered_sums(own, kind, first_tile, n_k_tiles, shared)
        b = first_b + torch.arange(len(gradient), device=device)[:, None, None, None]
        if read.has_order:
            if lists is not None:
                q, k = host.tokens_at(q, k, lists, b, h)
        elif not read.reads_head:
            gradient = gradient.sum(1, keepdim=True)
        names = {**named, "q": q, "k": k, "h": h, "n_k": n_k}

        def element(table: str, places: tuple[Value, ...], b: Tensor = b) -> Tensor:
            found: Tensor = host.read(inputs[table], b, *places)
            return found

        places = [
            tensor_value(place, names, element)
            for place in read.places
            if place is not None
        ]
        if read.axes:
            first_q = first_tile * host.BLOCK_Q
            host.add_at_pairs(total, gradient, b, first_q, *read.axes, *places)
        else:
            host.add_pairs(total, gradient, b, *places)
