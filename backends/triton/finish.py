"""Sinks and output clauses where autograd sees them.

In: what a program does with rows that are whole. Out: the text of `finish`. Not its
job: doing the same inside of the forward kernel (`weigh`), the definition (`dense`).
"""

from __future__ import annotations

from collections.abc import Sequence

from patternc.backends.triton.dense import assign_lines
from patternc.backends.triton.expr import TorchPrinter
from patternc.backends.triton.features import Features
from patternc.backends.triton.launches import checked_lines
from patternc.backends.triton.literals import heads_tensor
from patternc.backends.triton.ranges import place
from patternc.backends.triton.template import fill
from patternc.ir.floats import discrete_parts
from patternc.ir.nodes import Given
from patternc.ir.walk import params_of


def finish_text(features: Features, printer: TorchPrinter) -> str:
    """`finish`; empty for a program that has neither sinks nor output clauses."""
    if not features.has_epilogue:
        return ""
    inputs = "inputs = checked_inputs(out, v, q_offset, params)"
    values = [*checked_lines(features), inputs if features.inputs else "inputs = {}"]
    names = sorted({item.name for item in features.tables})
    tables = [f't_{name} = inputs["{name}"]' for name in names]
    tables += [
        f'p_{name} = torch.full((), values["{name}"], device=device)'
        for name in _params(features)
    ]
    lines: list[str] = []
    for sink in features.sinks:
        lines += [f"# {place(sink.span)}", *_heads_lines(sink.heads)]
        lines += assign_lines("sink", sink.logit, {}, printer, 4)
        lines += ["rows, row_lse = join_sink_rows(out[:, at], lse[:, at], sink)"]
        lines += [
            "out = with_heads(out, at, rows)",
            "lse = with_heads(lse, at, row_lse)",
        ]
    given = {Given.OUTPUT: "o", Given.VALUE: "own"}
    for case in features.outputs:
        lines += [f"# {place(case.span)}", *_heads_lines(case.heads), "o = out[:, at]"]
        if features.reads_own_value:
            lines.append(
                "own = v[:, at // (HEADS // KV_HEADS), q_offset : q_offset + n_q].to(wide)"
            )
        lines += assign_lines("rows", case.output, given, printer, 4)
        lines.append("out = with_heads(out, at, rows.expand(o.shape))")
    return fill("finish", {"values": values, "tables": tables, "cases": lines})


def _params(features: Features) -> list[str]:
    """The run-time parameters that sinks and outputs read."""
    rows = [*(x.logit for x in features.sinks), *(x.output for x in features.outputs)]
    parts = [part for expr in rows for part in discrete_parts(expr)]
    return sorted({name for part in parts for name in params_of(part)})


def _heads_lines(heads: Sequence[int]) -> list[str]:
    """The heads of a case, as a tensor that indexes and as one that broadcasts."""
    return [*heads_tensor("at", heads), "h = at[:, None, None]"]
