"""What the selections of a package chose for one call, to use again.

In: the tables that were made, and for which call. Out: `PackagedPlan`. Not its job:
choosing (`planning`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .package import Package


@dataclass(frozen=True, slots=True, eq=False)
class PackagedPlan:
    """The chosen keys of one call, for `attn(q, k, v, plan=plan)`.

    `found` holds a bool tensor [B, H, ...] for each selection, with one axis for each of
    its keys, and where these begin. `sizes` are batch, queries, keys and offset of the
    call, `params` the run-time parameters that chose.
    """

    package: Package = field(repr=False)
    found: Mapping[str, Any] = field(repr=False)
    sizes: tuple[int, int, int, int]
    dtype: torch.dtype
    params: Mapping[str, int | None]

    @property
    def tables(self) -> dict[str, Tensor]:
        """The tables alone."""
        return {x: y for x, y in self.found.items() if isinstance(y, Tensor)}


def checked_plan(
    plan: PackagedPlan,
    package: Package,
    q: Tensor,
    k: Tensor,
    q_offset: int | None,
    params: Mapping[str, int | None],
) -> Mapping[str, Any]:
    """What a plan found, for a call that it was made for.

    Raises `TypeError` or `ValueError` for any other.
    """
    name = package.manifest.facts.name
    if not isinstance(plan, PackagedPlan):
        came = type(plan).__name__
        raise TypeError(f"{name}: `plan`: expected what `plan` gave, got {came}")
    if plan.package is not package:
        raise ValueError(f"{name}: `plan`: it was made by another package")
    offset = k.shape[2] - q.shape[2] if q_offset is None else q_offset
    own = (q.shape[0], q.shape[2], k.shape[2], offset)
    for what, made, asked in (
        ("batch, queries, keys and offset", plan.sizes, own),
        ("dtype", plan.dtype, q.dtype),
        ("run-time parameters", dict(plan.params), dict(params)),
    ):
        if made != asked:
            raise ValueError(
                f"{name}: `plan`: it was made for {what} {made}, and this call has {asked}"
            )
    return plan.found
