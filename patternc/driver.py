"""The whole row, stage by stage: text to tile schedule.

In: a `Source`, the entry and its parameter values. Out: a `Kernel`, or everything
found on the way (`trace`), or the diagnostics of a file (`check_source`). Not its job:
backends, which start from a `Kernel`; no torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from patternc import check, passes
from patternc.analysis.prove import Decision, decide_all, diagnose
from patternc.diagnostics import Diagnostic, PatternError, raise_errors
from patternc.ir.nodes import Attention
from patternc.ir.selected import dense_alternative
from patternc.plan.asked import checked
from patternc.plan.choose import ASKED, Choice, choose, written
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse

Values = Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Trace:
    """One entry of a program after every stage."""

    source: Source
    attention: Attention
    after: tuple[tuple[str, Attention], ...]
    decisions: tuple[Decision, ...]
    kernel: Kernel
    schedule_origin: str


def trace_source(
    source: Source,
    entry: str | None = None,
    values: Values | None = None,
    schedule: Schedule | None = None,
) -> Trace:
    """Compile one entry and keep every stage. Raises `PatternError`."""
    attention = check.lower(parse(source), entry, values or {})
    return trace_attention(source, attention, schedule)


def trace_attention(
    source: Source, attention: Attention, schedule: Schedule | None = None
) -> Trace:
    """Compile a checked attention. Raises `PatternError` for asserts that fail."""
    wanted = None if schedule is None else Choice(schedule, ASKED)
    choice = wanted or written(attention)
    # An order is searched for the tile that is known before it; see `choose`.
    after = passes.run(attention, None if choice is None else choice.schedule)
    last = after[-1][1]
    decisions = decide_all(last)
    raise_errors(diagnose(decisions, last))
    choice = choice or choose(last)
    kernel = plan(last, choice.schedule)
    return Trace(source, attention, after, decisions, kernel, choice.origin)


def dense_trace(trace: Trace) -> Trace | None:
    """The attention that may be computed instead where that is cheaper, compiled.

    None if the program does not allow it. Raises `PatternError`.
    """
    other = dense_alternative(trace.attention)
    return None if other is None else trace_attention(trace.source, other)


def rescheduled(trace: Trace, **given: int) -> Trace:
    """The same attention in other tiles; numbers of its schedule that are not given stay.

    Raises as `patternc.plan.asked.checked` does.
    """
    wanted = checked(replace(trace.kernel.schedule, **given))
    kernel = plan(trace.kernel.attention, wanted)
    return replace(trace, kernel=kernel, schedule_origin=ASKED)


def compile_source(
    source: Source,
    entry: str | None = None,
    values: Values | None = None,
    schedule: Schedule | None = None,
) -> Kernel:
    """The tile schedule of one entry. Raises `PatternError`, failed asserts too."""
    return trace_source(source, entry, values, schedule).kernel


def decide_source(
    source: Source, entry: str | None = None, values: Values | None = None
) -> tuple[Attention, tuple[Decision, ...]]:
    """One entry and what is known of its asserts. Raises `PatternError`.

    For failed asserts too, so that each of these is proved or open.
    """
    attention = check.lower(parse(source), entry, values or {})
    decisions = decide_all(passes.final_masks(attention))
    raise_errors(diagnose(decisions, attention))
    return attention, decisions


def check_source(source: Source) -> tuple[Diagnostic, ...]:
    """Everything that can be said of a file, asserts decided; errors do not raise."""
    try:
        file = parse(source)
    except PatternError as error:
        return error.diagnostics
    found = list(check.check_file(file))
    if any(item.is_error for item in found):
        return tuple(found)
    for item in file.items:
        # Without values for all its parameters an attention has no meaning to decide.
        if isinstance(item, ast.Attention) and all(
            p.default is not None or p.runtime for p in item.parameters
        ):
            attention = passes.final_masks(check.lower(file, item.name.text))
            found += diagnose(decide_all(attention), attention)
    return tuple(found)
