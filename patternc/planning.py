"""Making the plan of a checked call.

In: an attention that selects, the program that runs it, the tensors of a call. Out: a
`Plan`. Not its job: what is chosen (`backends.planner`), what a plan can do
(`patternc.planned`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor

from patternc.backends.amounts import check_amounts
from patternc.backends.key_ranges import CallSizes, places_of
from patternc.backends.planner import check_ranked
from patternc.ir.nodes import Attention
from patternc.ir.selected import chosen_params
from patternc.ops.planning import plan
from patternc.ops.program import Site, constant, program_of
from patternc.planned import Plan


def made_plan(
    attention: Attention,
    program: str,
    q: Tensor,
    k: Tensor,
    scale: float,
    q_offset: int,
    values: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    check: bool,
) -> Plan:
    """The plan of a call; `values` and `inputs` are those of its caller.

    Raises `ValueError` for numbers of the program that the call does not have, and with
    `check`, which waits for the device, for NaN among numbers that are ranked.
    """
    n_q, n_k = q.shape[2], k.shape[2]
    places = _places(program, n_q, n_k, q_offset, tuple(values.values()))
    if check:
        check_ranked(
            attention,
            q,
            k,
            scale=scale,
            q_offset=q_offset,
            params=values,
            inputs=inputs,
        )
    site = Site(tuple(values.values()), q_offset, scale)
    found = plan(q, k, tuple(inputs.values()), program, site)
    names = [selection.table for selection in attention.selections]
    tables = dict(zip(names, found, strict=True))
    read = {name: values[name] for name in _chosen_params(program)}
    sizes = CallSizes(n_q, n_k, q_offset)
    return Plan(attention, tables, dict(places), q.shape[0], sizes, q.dtype, read)


@constant
def _places(
    program: str, n_q: int, n_k: int, q_offset: int, params: tuple[int, ...]
) -> tuple[tuple[str, int], ...]:
    """The parameters that say where keys are; wrong numbers of the program raise."""
    return _known_places(program, CallSizes(n_q, n_k, q_offset), params)


@lru_cache(maxsize=1024)
def _known_places(
    program: str, sizes: CallSizes, params: tuple[int, ...]
) -> tuple[tuple[str, int], ...]:
    known = program_of(program)
    attention = known.attention
    values = dict(zip(known.caller_params, params, strict=True))
    check_amounts(attention, sizes, values)
    return tuple(places_of(attention.selections, sizes, values).items())


@constant
def _chosen_params(program: str) -> tuple[str, ...]:
    """The parameters of callers that the selections read."""
    return chosen_params(program_of(program).attention)
