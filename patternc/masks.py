"""Dense masks of an attention, from its definition.

In: an attention, the sizes of a call, its inputs and the tables of its plan. Out: the
visible pairs of all heads. Not its job: pictures (`patternc.picture`), the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from patternc.backends.input_checks import Declared, batch_of, check_inputs
from patternc.backends.inputs import element_inputs
from patternc.backends.key_ranges import CallSizes
from patternc.backends.reference import mask_tensor
from patternc.ir.nodes import Attention


def dense_masks(
    attention: Attention,
    declared: Declared,
    sizes: CallSizes,
    values: Mapping[str, int],
    given: Mapping[str, object],
    tables: Mapping[str, Tensor] | None,
) -> Tensor:
    """The visible pairs, bool [H, n_q, n_k], or [B, H, n_q, n_k] if an input or a plan
    has batch elements, on the CPU.

    `declared` are the inputs of callers, `given` what one gives, `values` every run-time
    parameter, `tables` those of a plan. Raises `TypeError` or `ValueError`.
    """
    read = {name: item for name, item in declared.items() if item[0] != "float"}
    batch = batch_of(read, given)
    if tables:
        batch = next(iter(tables.values())).shape[0]
    count = 1 if batch is None else batch
    inputs = check_inputs(
        attention.name,
        read,
        given,
        batch=count,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        n_q=sizes.n_q,
        n_k=sizes.n_k,
        q_offset=sizes.q_offset,
        device=_device_of(given),
        dtype=torch.float32,
    )
    every = {**inputs, **(tables or {})}
    masks = [
        mask_tensor(
            attention,
            sizes.n_q,
            sizes.n_k,
            sizes.q_offset,
            values,
            tables=element_inputs(every, element).tables,
        )
        for element in range(count)
    ]
    return masks[0] if batch is None else torch.stack(masks)


def _device_of(given: Mapping[str, object]) -> torch.device:
    """That of the first tensor: the others are held to it."""
    tensors = (value for value in given.values() if isinstance(value, Tensor))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
