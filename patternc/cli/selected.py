"""The mask of a program that selects: random queries and keys, and what they choose.

In: an attention, the sizes of a call, the inputs of the command line, a seed. Out: the
parameters and tables of one batch element. Needs torch. Not its job: the mask
(`cli.mask`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from patternc.backends.amounts import check_amounts
from patternc.backends.declared import given_by_callers
from patternc.backends.input_checks import check_inputs
from patternc.backends.inputs import element_inputs
from patternc.backends.key_ranges import CallSizes
from patternc.cli.inputs import Call, Table
from patternc.cli.report import UsageError
from patternc.ir.evaluate import Tables
from patternc.ir.nodes import Attention
from patternc.samples import with_plan

HEAD_DIM = 64


def chosen_tables(
    attention: Attention,
    call: Call,
    given: Mapping[str, Table],
    params: Mapping[str, int],
    seed: int,
) -> tuple[dict[str, int], Tables]:
    """What standard normal queries and keys of 64 channels choose.

    The numbers are those of the seed, whatever the program. Raises `UsageError` for
    inputs that do not fit, and for budgets that the call does not have.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = call.batch + 1
    shapes = ((attention.heads, call.n_q), (attention.kv_heads, call.n_k))
    q, k = (
        torch.randn((batch, *shape, HEAD_DIM), generator=generator) for shape in shapes
    )
    tensors = {name: torch.from_numpy(table) for name, table in given.items()}
    try:
        inputs = check_inputs(
            attention.name,
            given_by_callers(attention),
            tensors,
            batch=batch,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            n_q=call.n_q,
            n_k=call.n_k,
            q_offset=call.q_offset,
            device=torch.device("cpu"),
            dtype=q.dtype,
        )
        check_amounts(attention, CallSizes(call.n_q, call.n_k, call.q_offset), params)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    scale = HEAD_DIM**-0.5
    values, every = with_plan(attention, q, k, scale, call.q_offset, params, inputs)
    return values, element_inputs(every, call.batch).tables
