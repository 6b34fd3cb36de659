"""What a call with `check` looks at.

In: a compilation, the inputs of a call, its sizes. Out: nothing, or a `ValueError` that
says what is wrong with the data first. Not its job: what is looked at for the pairs of one
batch element (`patternc.data_checks`, which needs no torch), types and shapes
(`patternc.contract`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from patternc.backends.declared import declarations
from patternc.backends.input_checks import check_values
from patternc.backends.inputs import element_inputs, elements_of
from patternc.backends.key_ranges import CallSizes
from patternc.data_checks import CallPairs, failing_assert, wrong_length
from patternc.driver import Trace


def check_data(
    trace: Trace,
    inputs: Mapping[str, Tensor],
    q: Tensor,
    sizes: CallSizes,
    values: Mapping[str, int],
) -> None:
    """Look at the values of a call's inputs. Raises `ValueError` for the first failure.

    It waits for the device.
    """
    attention = trace.kernel.attention
    check_values(attention.name, declarations(attention), inputs)
    for elements in elements_of(inputs, inputs, q.shape[0]):
        tables = element_inputs(inputs, elements.start).tables
        call = CallPairs(sizes.n_q, sizes.n_k, sizes.q_offset, values, tables)
        failure = wrong_length(attention, call)
        failure = failure or failing_assert(attention, trace.decisions, call)
        if failure is not None:
            where = "" if len(elements) > 1 else f", batch element {elements.start}"
            raise ValueError(f"{attention.name}: {failure}{where}")
