"""Programs that the kernels refuse.

In: a planned kernel, and the inputs that ask for a gradient. Out: a diagnostic that
points at the clause, or None. Not its job: what a call asks for (the generated module
checks that).
"""

from __future__ import annotations

from collections.abc import Collection

from patternc.backends.triton.slopes import pair_inputs
from patternc.diagnostics import Diagnostic
from patternc.plan.kernel import Kernel
from patternc.source import NOWHERE


def gradient_refusal(kernel: Kernel, wanted: Collection[str]) -> Diagnostic | None:
    """Why an input has no gradient: it is read at pairs of a query and a key.

    `wanted` are the inputs that ask for one.
    """
    for case in kernel.attention.scores:
        for name, read in pair_inputs((case,)).items():
            if name in wanted:
                message = f"the triton backend has no gradient for the input `{name}`"
                label = "it is read at an index that depends on both q and k"
                advice = 'use backend="tiled", or pass the input without a gradient'
                span = case.span if read.span == NOWHERE else read.span
                return Diagnostic("unsupported", message, span, label, advice)
    return None
