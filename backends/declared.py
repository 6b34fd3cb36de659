"""The declared inputs of an attention as plain literals.

In: an attention. Out: what `backends.input_checks` compares a call with, in a form that can
be printed into a generated module. Needs no torch. Not its job: the check itself.
"""

from __future__ import annotations

from patternc.ir.nodes import Attention

Axes = tuple[tuple[str, int, int, int], ...]
"""For each axis its kind, shift, divisor and size; see `ir.nodes.InputAxis`."""


def given_by_callers(
    attention: Attention,
) -> dict[str, tuple[str, Axes, bool]]:
    """The declarations of the inputs that callers give: no tables of selections."""
    tables = {selection.table for selection in attention.selections}
    found = declarations(attention)
    return {name: found[name] for name in found if name not in tables}


def declarations(attention: Attention) -> dict[str, tuple[str, Axes, bool]]:
    """For each input what it holds, its axes and whether it is sorted, in order."""
    return {
        item.name: (
            item.element.value,
            tuple((a.kind.value, a.shift, a.divisor, a.size) for a in item.axes),
            item.is_sorted,
        )
        for item in attention.inputs
    }
