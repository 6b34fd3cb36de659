"""What the kernels can't do yet.

In: a planned kernel. Out: a diagnostic that points at the first clause of the program
that has no kernel, or None. Not its job: what a call asks for (the generated module
checks that).
"""

from __future__ import annotations

from collections.abc import Sequence

from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import Input, OutputCase, ScoreCase, SinkCase, WeightCase
from patternc.plan.kernel import Kernel

Clause = Input | ScoreCase | WeightCase | SinkCase | OutputCase


def refusal(kernel: Kernel) -> Diagnostic | None:
    """The reason why a kernel has no module. An `order` is no reason: it is a schedule,
    and plain tiles give the same result."""
    attention = kernel.attention
    clauses: tuple[tuple[str, Sequence[Clause]], ...] = (
        ("inputs", attention.inputs),
        ("scores", attention.scores),
        ("weights", attention.weights),
        ("sinks", attention.sinks),
        ("outputs", attention.outputs),
    )
    for name, found in clauses:
        if found:
            message = f"the triton backend has no kernel for {name}"
            advice = 'use backend="tiled", which runs on any device'
            return Diagnostic("unsupported", message, found[0].span, "", advice)
    return None
