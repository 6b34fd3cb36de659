"""The dense definition, in a generated module.

In: a planned kernel and what it does beside masks. Out: the text of `reference`. Not
its job: the meaning, which it repeats (`ir.evaluate`, `backends.floats`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from patternc.backends.triton.expr import COLUMNS, Printer, TorchPrinter
from patternc.backends.triton.features import Features, reads_of_float
from patternc.backends.triton.floats import (
    TORCH,
    FloatPrinter,
    folded_float,
    number_text,
)
from patternc.backends.triton.ranges import heads_condition, place
from patternc.backends.triton.template import fill
from patternc.ir.nodes import (
    Axis,
    FloatExpr,
    FloatRead,
    Given,
    Read,
    WeightCase,
    WeightKind,
)
from patternc.plan.kernel import Kernel

_WIDTHS = (40, 26, 14)


def dense_text(kernel: Kernel, features: Features, printer: TorchPrinter) -> str:
    """`reference` of a program that has more than masks of arithmetic."""
    names = [param.name for param in kernel.attention.params]
    tables = [item.name for item in features.tables]
    values = [f'p_{x} = torch.tensor(values["{x}"], device=device)' for x in names]
    values += [f't_{x} = inputs["{x}"]' for x in tables]
    return fill(
        "dense",
        {
            "checked": _checked(features),
            "values": values,
            "masks": mask_lines(kernel, printer),
            "scores": _cases(
                features.scores,
                printer,
                lambda case, at: assign_lines(
                    "s", case.score, {Given.SCORE: "s"}, printer, at
                ),
            ),
            "sinks": _cases(
                features.sinks,
                printer,
                lambda case, at: assign_lines("sink", case.logit, {}, printer, at),
            ),
            "weights": _cases(features.unnormalised, printer, _weight_lines),
            "outputs": _output_lines(features, printer),
            "skipped": _skipped_lines(features, printer),
        },
    )


def _checked(features: Features) -> list[str]:
    if not features.inputs:
        return ["values = check_params(NAME, PARAMS, params)", "inputs = {}"]
    return [
        "values = check_params(NAME, PARAMS, params, INPUTS)",
        "inputs = checked_inputs(q, k, q_offset, params)",
    ]


def mask_lines(kernel: Kernel, printer: TorchPrinter) -> list[str]:
    """Lines that find `keep`, the visible pairs of a head."""
    heads = Printer({Axis.HEAD: "head"}, printer.box)
    last = len(kernel.covers) - 1
    conditions: list[str] = []
    masks: list[str] = []
    for at, cover in enumerate(kernel.covers):
        indent = 4 if last else 0
        if at < last:
            members = heads_condition(cover.heads)
            conditions += heads.assign(f"in_group_{at}", members, 4)
        if last:
            word = "else" if at == last else f"{'elif' if at else 'if'} in_group_{at}"
            masks.append(f"{word}:")
        keep = printer.assign("keep", cover.mask, 4 + indent)
        masks += [" " * indent + line for line in (f"# {place(cover.span)}", *keep)]
    return conditions + masks


def _cases(
    cases: Sequence[Any],
    printer: TorchPrinter,
    body: Callable[[Any, int], list[str]],
) -> list[str]:
    """Each case's lines, for its heads alone."""
    lines: list[str] = []
    for case in cases:
        condition = _heads(case.heads, printer)
        comment = f"# {place(case.span)}"
        inner = ["    " + line for line in (comment, *body(case, 8))]
        lines += [f"if {condition}:", *inner]
    return lines


def _heads(heads: Sequence[int], printer: TorchPrinter) -> str:
    own = Printer({Axis.HEAD: "head"}, printer.box)
    text = own.print(heads_condition(heads))
    return text if len(text) < 70 else f"head in {tuple(heads)}"


def assign_lines(
    target: str,
    expr: FloatExpr,
    given: dict[Given, str],
    printer: TorchPrinter,
    indent: int,
) -> list[str]:
    """`target = expr` as PyTorch text, with the elements that it reads."""
    expr = folded_float(expr)
    reads: dict[FloatRead, str] = {}
    loads: list[str] = []
    for read in reads_of_float(expr):
        if isinstance(read, Read):
            continue
        name = f"r_{read.table}_{len(reads) + 1}"
        places = [printer.print(index) for index in read.indices]
        call = f"read({', '.join([f't_{read.table}', 'b', *places])})"
        loads.append(f"{name} = as_float({call})")
        reads[read] = name
    lines: list[str] = []
    for width in _WIDTHS:
        own = FloatPrinter(TORCH, printer, reads, given, target, indent, width)
        text = own.text_of_all(expr)
        lines = [*own.lines, f"{target} = {text}"]
        if all(len(line) + indent <= COLUMNS for line in lines):
            break
    return [*loads, *lines]


def _weight_lines(case: WeightCase, _: int) -> list[str]:
    argument = number_text(case.argument)
    lse = "lse = torch.full_like(lse, math.nan)"
    if case.kind is WeightKind.RELU2:
        root = f"torch.relu(s.masked_fill(~keep, 0.0) * {argument})"
        return [f"weights = {root}.square()", lse]
    return [f"weights = torch.sigmoid(s + {argument})", lse]


def _output_lines(features: Features, printer: TorchPrinter) -> list[str]:
    own = (
        ["v = v_rows[:, q_offset : q_offset + n_q]"] if features.reads_own_value else []
    )
    values = {Given.OUTPUT: "o", Given.VALUE: "v"}
    return own + _cases(
        features.outputs,
        printer,
        lambda case, at: assign_lines("o", case.output, values, printer, at),
    )


def _skipped_lines(features: Features, printer: TorchPrinter) -> list[str]:
    if not features.skipped:
        return []
    return [
        f"if {_heads(features.skipped, printer)}:",
        "    o, lse = torch.zeros_like(o), torch.full_like(lse, -math.inf)",
    ]
