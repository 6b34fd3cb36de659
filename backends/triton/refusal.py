"""Programs that the kernels refuse.

In: a planned kernel. Out: a diagnostic that points at the clause, or None. Not its job:
what a call asks for (the generated module checks that).
"""

from __future__ import annotations

from patternc.diagnostics import Diagnostic
from patternc.plan.kernel import Kernel


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
