"""The schedule block of an attention to IR.

In: the block's clause and the environment of its attention. Out: a `WrittenSchedule`;
mistakes go to `found`. Not its job: choosing what is not written (`plan.choose`).
"""

from __future__ import annotations

from patternc.check.environment import Environment
from patternc.check.scope import did_you_mean
from patternc.check.values import constant_of
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import WrittenSchedule
from patternc.source import Span
from patternc.syntax import ast

RANGES = {
    "block_q": (16, 1024),
    "block_k": (16, 1024),
    "warps": (1, 32),
    "stages": (1, 8),
}
"""The settings and their least and greatest values."""


def lower_schedule(
    clause: ast.ScheduleBlock, env: Environment, found: list[Diagnostic]
) -> WrittenSchedule:
    """What a block says; a setting with a mistake is left out."""
    values: dict[str, int] = {}
    for setting in clause.settings:
        if setting.name is None:
            _report(found, "a setting needs a name", setting.span, _SHOWN)
            continue
        name = setting.name.text
        if name not in RANGES:
            help_text = did_you_mean(name, RANGES) or _SHOWN
            message = f"there is no setting `{name}`"
            _report(found, message, setting.name.span, help_text)
        elif name in values:
            _report(found, f"`{name}` is given twice", setting.span, "keep one")
        else:
            value = constant_of(setting.value, env, found)
            if value is not None:
                _check_value(name, value, setting.value.span, found)
                values[name] = value
    return WrittenSchedule(**values, span=clause.span)


_SHOWN = f"settings are {', '.join(RANGES)}: `block_q = 64`"


def _check_value(name: str, value: int, span: Span, found: list[Diagnostic]) -> None:
    least, greatest = RANGES[name]
    is_power = name == "stages" or value & (value - 1) == 0
    if not least <= value <= greatest or not is_power:
        kind = "a number" if name == "stages" else "a power of two"
        message = f"`{name}` is {kind} from {least} to {greatest}, not {value}"
        _report(found, message, span, f"write `{name} = {max(least, 2)}`")


def _report(found: list[Diagnostic], message: str, span: Span, help_text: str) -> None:
    found.append(Diagnostic("bad-schedule", message, span, "", help_text))
