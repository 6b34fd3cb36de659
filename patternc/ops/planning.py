"""The operator `patternc::plan`: the tables of a program's selections.

In: queries, keys, inputs, the name of a program. Out: one table for each selection; for
PyTorch also their shapes without values, and a rule for vmap. Not its job: what is
chosen (`ops.program`), the attention (`ops.operators`).

A choice has no gradient: tables are truth values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from patternc.backends.key_ranges import CallSizes, selection_ranges
from patternc.ops.operators import LIBRARY, Fold
from patternc.ops.program import Site, program_of
from patternc.ops.watched import is_watched

_SCHEMA = """plan(
    Tensor q, Tensor k, Tensor[] inputs, str program, SymInt[] params, SymInt q_offset,
    float scale
) -> Tensor[]"""
LIBRARY.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]


def plan(
    q: Tensor, k: Tensor, inputs: Sequence[Tensor], program: str, site: Site
) -> list[Tensor]:
    """The table of each selection, bool [B, H, ...], in order.

    `inputs` and `site.params` are those of callers, in the order of declaration.
    """
    q, k = q.detach(), k.detach()
    own = [x.detach() for x in inputs]
    if not is_watched((q, k, *own)):
        with torch.no_grad():
            return program_of(program).plan(q, k, own, site)
    params = list(site.params)
    found: list[Tensor] = torch.ops.patternc.plan(
        q, k, own, program, params, site.q_offset, site.scale
    )
    return found


def _plan(
    q: Tensor,
    k: Tensor,
    inputs: Sequence[Tensor],
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
) -> list[Tensor]:
    site = Site(tuple(params), q_offset, scale)
    return program_of(program).plan(q, k, inputs, site)


def _plan_shapes(
    q: Tensor,
    k: Tensor,
    inputs: Sequence[Tensor],
    program: str,
    params: Sequence[int],
    q_offset: int,
    scale: float,
) -> list[Tensor]:
    known = program_of(program)
    sizes = CallSizes(int(q.shape[2]), int(k.shape[2]), int(q_offset))
    named = dict(zip(known.caller_params, map(int, params), strict=True))
    found = []
    for selection in known.attention.selections:
        own = [one.size for one in selection_ranges(selection, sizes, named)]
        found.append(q.new_empty((*q.shape[:2], *own), dtype=torch.bool))
    return found


def _plan_vmap(
    info: Any,
    in_dims: Sequence[Any],
    q: Tensor,
    k: Tensor,
    inputs: Sequence[Tensor],
    *rest: Any,
) -> tuple[list[Tensor], list[int]]:
    """The mapped axis becomes a part of the batch."""
    fold = Fold.of(info.batch_size, q, in_dims[0])
    own = [fold.input(x, dim, False) for x, dim in zip(inputs, in_dims[2], strict=True)]
    rows = [fold.rows(x, dim) for x, dim in zip((q, k), in_dims[:2], strict=True)]
    parts = [fold.back(x) for x in torch.ops.patternc.plan(*rows, own, *rest)]
    return parts, [0] * len(parts)


def _plan_flops(*arguments: object, **results: object) -> int:
    """0: what an estimate costs is no part of an attention's operations."""
    return 0


LIBRARY.impl("plan", torch.no_grad()(_plan), "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("patternc::plan", _plan_shapes, lib=LIBRARY)
torch.library.register_vmap("patternc::plan", _plan_vmap, lib=LIBRARY)
register_flop_formula([torch.ops.patternc.plan], get_raw=True)(_plan_flops)
