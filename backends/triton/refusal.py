"""Programs that the kernels refuse.

In: a planned kernel, and the inputs that ask for a gradient. Out: a diagnostic that points at the clause, or None. Not its job:
what a call asks for (the generated module checks that).
"""

from __future__ import annotations

from collections.abc import Sequence

from patternc.backends.triton.slopes import pair_inputs
from patternc.diagnostics import Diagnostic
from patternc.plan.kernel import Kernel
from patternc.source import NOWHERE


def refusal(kernel: Kernel) -> Diagnostic | None:
    """Why a program has no kernel.

    The text for a `score` is made and is right in Triton's interpreter, but on an H200
    the LSE under a soft cap missed its float64 budget (4.5e-5 of 4.0e-5), so it is
    refused until that is understood.
    """
    for case in kernel.attention.scores:
        message = "the triton backend does not run a `score` yet"
        label = "its LSE is less exact on a GPU than its budget allows"
        advice = 'use backend="tiled", which runs on any device'
        return Diagnostic("unsupported", message, case.span, label, advice)
    return None


def gradient_refusal(kernel: Kernel, wanted: Sequence[str]) -> Diagnostic | None:
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
