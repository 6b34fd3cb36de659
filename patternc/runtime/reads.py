"""Program text of a generated module's host that a package has as formulas.

In: formulas of a manifest, the tensors of a call. Out: where chosen columns and blocks
count; the gradients of inputs that scores read. Not its job: kernels (`host`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .data import ScoreRead, ScoreReads, StripeFacts
from .tensors import Value, tensor_value


def keep_within(
    stripes: StripeFacts,
    heads: int,
    part: str,
    ahead: Tensor,
    n_k: int,
    values: Mapping[str, int],
) -> Tensor:
    """Where a column or a block ("columns", "blocks") counts, bool [1 or heads, n].

    `ahead` [n] says how far a key is ahead of a query.
    """
    formula = stripes.within if part == "columns" else stripes.blocks_within
    d = -ahead[None]
    names: dict[str, Value] = {"q": d, "n_k": n_k}
    names |= {f"p_{name}": value for name, value in values.items()}
    h = torch.arange(heads, device=ahead.device)[:, None]
    names["h"] = h
    keep = tensor_value(formula, names)
    if not isinstance(keep, Tensor):
        keep = torch.full_like(h, int(keep), dtype=torch.bool)
    return keep & torch.ones_like(d, dtype=torch.bool)


def input_gradients(
    host: Any,
    reads: ScoreReads,
    rows: Tensor,
    columns: Tensor,
    q_offset: int,
    values: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    totals: Mapping[str, Tensor],
) -> None:
    """The gradients of inputs that scores read, from those of rows and keys.

    `rows` is [slots, B, H, n_q] and `columns` [slots, B, H, n_k]: of each element that a
    head reads. They are added to `totals`, float32, shaped as `inputs`, which have their
    batch axis first.
    """
    device = rows.device
    b = torch.arange(rows.shape[1], device=device)[:, None, None]
    names: dict[str, Value] = {
        "q": torch.arange(rows.shape[3], device=device) + q_offset,
        "k": torch.arange(columns.shape[3], device=device),
        "n_k": columns.shape[3],
        **{f"p_{name}": value for name, value in values.items()},
    }

    def element(table: str, places: tuple[Value, ...]) -> Tensor:
        found: Tensor = host.read(inputs[table], b, *places)
        return found

    for read in reads.reads:
        if read.table in totals:
            h = torch.tensor([*read.heads], device=device)[:, None]
            names["h"] = h
            gradient = _gradient(read, rows if read.of_rows else columns, h)
            places = [tensor_value(place, names, element) for place in read.places]
            host.add_reads(totals[read.table], gradient, b, *places)


def _gradient(read: ScoreRead, parts: Tensor, heads: Tensor) -> Tensor:
    """That of an element, of whole rows or columns where it is the same in all."""
    own = parts[read.slot][:, heads[:, 0]]
    return own if read.moves else own.sum(2, keepdim=True)
