"""The planning phase in PyTorch: the tables of an attention's selections.

In: an attention that selects, and the tensors of a call. Out: for each selection its
table of truth values, [B, H, ...] with one axis for each key, in the order in which
they are computed. Not its job: the mask that reads them, keeping them
(`patternc.planned`). A backend may have a planner of its own: see `protocol.Planner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from patternc.backends.choosing import Candidates, chosen
from patternc.backends.key_ranges import (
    MOST_KEYS,
    CallSizes,
    KeyRange,
    places_of,
    selection_ranges,
)
from patternc.backends.map_values import Part, Values
from patternc.backends.maps import Estimate
from patternc.backends.values import truths_at
from patternc.ir.nodes import Attention
from patternc.ir.selection import (
    MapExpr,
    MapNumber,
    MapValue,
    Selection,
    keys_of,
)

Choose = Callable[[Selection, Candidates], Tensor]
"""Which candidates a selection takes, bool of the shape of the numbers."""


def plan_tables(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    q_offset: int,
    params: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    check: bool = False,
) -> dict[str, Tensor]:
    """The table of each selection, bool [B, H, ...], by name.

    `q` is [B, H, n_q, D] and `k` [B, KV, n_k, D]; `inputs` are those that a caller
    gives, with a batch axis of 1 or B. Computed in float64 for float64, else in
    float32. No gradient goes through a choice. Raises `ValueError` for a table that is
    too large, and with `check` for NaN among numbers that are ranked.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        call = Estimate(
            attention,
            q.detach().to(wide),
            k.detach().to(wide),
            scale,
            q_offset,
            known_params(attention, q, k, q_offset, params),
            wide_inputs(inputs, wide),
            check,
        )
        return tables_of(call, params, chosen)


def known_params(
    attention: Attention, q: Tensor, k: Tensor, q_offset: int, params: Mapping[str, int]
) -> dict[str, int]:
    """The parameters of a call and those that say where keys of tables are."""
    sizes = CallSizes(q.shape[2], k.shape[2], q_offset)
    return {**params, **places_of(attention.selections, sizes, params)}


def wide_inputs(inputs: Mapping[str, Tensor], wide: torch.dtype) -> dict[str, Tensor]:
    """Inputs with their floating numbers in the dtype to compute in."""
    return {
        name: x.to(wide) if x.dtype.is_floating_point else x
        for name, x in inputs.items()
    }


def tables_of(
    call: Estimate, params: Mapping[str, int], choose: Choose
) -> dict[str, Tensor]:
    """The table of each selection of a call; `params` are those of the caller."""
    tables: dict[str, Tensor] = {}
    for selection in call.attention.selections:
        table = _table(selection, call, params, choose)
        tables[selection.table] = call.inputs[selection.table] = table
    return tables


def check_ranked(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    q_offset: int,
    params: Mapping[str, int],
    inputs: Mapping[str, Tensor],
) -> None:
    """Look for NaN among the numbers that selections rank; this waits for the device.

    The arguments are those of `plan_tables`. Raises `ValueError`.
    """
    plan_tables(
        attention,
        q,
        k,
        scale=scale,
        q_offset=q_offset,
        params=params,
        inputs=inputs,
        check=True,
    )


def _table(
    selection: Selection, call: Estimate, params: Mapping[str, int], choose: Choose
) -> Tensor:
    """The table of one selection."""
    wanted = selection_ranges(selection, call.sizes, params)
    if prod(own.size for own in wanted) > MOST_KEYS:
        shown = " x ".join(str(own.size) for own in wanted)
        raise ValueError(
            f"`{selection.table}`: its table would have {shown} entries for each head;"
            " select among larger groups"
        )
    shape = [*call.q.shape[:2], *(own.size for own in wanted)]
    own = call.ranges(selection.values)
    is_empty = 0 in shape or 0 in (one.size for one in own)
    parts: list[Part | None] = [None]
    if 0 in selection.per and not is_empty:
        parts = list(call.parts(selection.values))
    in_one = parts == [None] or parts == [(0, own[0].size)]
    if own == wanted and in_one and not is_empty:
        return _choose(selection, call, own, parts[0], choose).contiguous()
    table = torch.zeros(shape, dtype=torch.bool, device=call.q.device)
    if is_empty:
        return table
    inner = table
    for dim, (whole, part) in enumerate(zip(wanted, own, strict=True)):
        inner = inner.narrow(2 + dim, part.first - whole.first, part.size)
    for rows in parts:
        taken = _choose(selection, call, own, rows, choose)
        target = inner if rows is None else inner[:, :, rows[0] : rows[1]]
        target.copy_(taken)
    return table if selection.reach == 1 else _widened(table, selection.reach)


def _widened(table: Tensor, reach: int) -> Tensor:
    """Where one of `reach` places, from each one on, is held, along the last axis."""
    before = pad(table.cumsum(-1, dtype=torch.int32), (1, 0))
    ends = torch.arange(reach, table.shape[-1] + reach, device=table.device)
    ends = ends.clamp(max=table.shape[-1])
    return before.index_select(-1, ends) > before[..., :-1]


def _choose(
    selection: Selection,
    call: Estimate,
    own: tuple[KeyRange, ...],
    rows: Part | None,
    choose: Choose,
) -> Tensor:
    """The choice among the entries of a map, or of some rows of it."""
    found = call.values(selection.values, rows)
    extent = [one.size for one in own]
    if rows is not None:
        extent[0] = rows[1] - rows[0]
    front = call.q.shape[:2]
    live = found.live.expand(*front, *extent)
    if call.check:
        _check_numbers(call.attention.name, selection, found.numbers.isnan() & live)
    if selection.always is None:
        always = torch.zeros_like(live)
    else:
        held = truths_at(selection.always, call.place(selection.values, rows))
        always = live & held
    scopes = [2 + place for place in selection.per]
    rest = [dim for dim in range(2, 2 + len(own)) if dim not in scopes]
    order = [0, 1, *scopes, *rest]

    def arranged(x: Tensor) -> Tensor:
        moved = x.expand(*front, *extent).permute(order)
        return moved.flatten(2 + len(scopes)) if rest else moved.unsqueeze(-1)

    def number(map_: MapExpr | None) -> Tensor | None:
        if map_ is None:
            return None
        amount = _amount(call, map_, selection, rows)
        return amount.unsqueeze(-1)

    amount = number(selection.amount)
    assert amount is not None
    given = Candidates(
        arranged(found.numbers),
        arranged(live),
        arranged(always),
        amount,
        number(selection.least),
        number(selection.most),
    )
    taken = choose(selection, given)
    shaped = taken.reshape([front[0], front[1], *(extent[d - 2] for d in order[2:])])
    back = [order.index(dim) for dim in range(len(order))]
    return shaped.permute(back)


def _check_numbers(name: str, selection: Selection, is_nan: Tensor) -> None:
    """Raises `ValueError` that shows an entry whose number is NaN."""
    if bool(is_nan.any()):
        batch, head, *_ = is_nan.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: `{selection.table}`: expected numbers to rank, got NaN at batch"
            f" element {batch}, head {head}"
        )


def _amount(
    call: Estimate, map_: MapExpr, selection: Selection, rows: Part | None
) -> Tensor:
    """A number for each scope, [B, H, scopes...]; 0 where it is not live."""
    if not keys_of(map_):
        rows = None
    found: Values = call.values(map_, rows)
    numbers = found.numbers
    if not isinstance(map_, MapNumber | MapValue):  # these are always live
        numbers = torch.where(found.live, numbers, 0)
    for _ in range(len(selection.per) - len(keys_of(map_))):
        numbers = numbers.unsqueeze(-1)
    return numbers
