"""The inputs of a call, for backends that compute in PyTorch.

In: checked tensors, each with a batch axis. Out: which batch elements see the same, and
the inputs of one of them: integers and truth values for NumPy, floating ones as they
are. Not its job: checking them (`backends.input_checks`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from patternc.ir.evaluate import Tables


@dataclass(frozen=True, slots=True)
class ElementInputs:
    """The inputs that some batch elements share, without their batch axis.

    `tables` holds those of integers and truth values, `floats` the others.
    """

    tables: Tables
    floats: Mapping[str, Tensor]


def elements_of(
    inputs: Mapping[str, Tensor], names: Collection[str], batch: int
) -> list[range]:
    """The batch elements that see the same named inputs: all, or each alone."""
    if batch == 0 or all(inputs[name].shape[0] == 1 for name in names):
        return [range(batch)]
    return [range(element, element + 1) for element in range(batch)]


def element_inputs(inputs: Mapping[str, Tensor], element: int) -> ElementInputs:
    """The inputs of one batch element. What is handed to NumPy is copied.

    With no batch at all, element 0 has zeros in every input.
    """
    own = {
        name: tensor[element % len(tensor)]
        if len(tensor)
        else tensor.new_zeros(tensor.shape[1:])
        for name, tensor in inputs.items()
    }
    tables = {
        name: np.array(tensor.detach().cpu().numpy(), dtype=np.int64)
        for name, tensor in own.items()
        if not tensor.dtype.is_floating_point
    }
    floats = {
        name: tensor for name, tensor in own.items() if tensor.dtype.is_floating_point
    }
    return ElementInputs(tables, floats)
