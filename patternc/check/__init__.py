"""Names, types and values: from the syntax of a file to the IR of one entry.

In: an `ast.File`. Out: diagnostics (`check_file`), or the IR (`lower`). Not its job:
syntax errors (`patternc.syntax`), proving asserts (`patternc.analysis`).
"""

from __future__ import annotations

from patternc.check.environment import Budget
from patternc.check.lower import entries, lower, lower_item, ordered
from patternc.check.program import program_errors
from patternc.check.scope import scope_of
from patternc.diagnostics import Diagnostic
from patternc.syntax import ast

_OF_A_LAYOUT = ("unknown-axis", "unknown-segment")

__all__ = ["check_file", "entries", "lower"]


def check_file(file: ast.File) -> tuple[Diagnostic, ...]:
    """Every error and warning of a file, ordered by place.

    Attentions and patterns whose parameters all have values are expanded too, once
    names and types are right.
    """
    found = list(program_errors(file))
    if any(diagnostic.is_error for diagnostic in found):
        return ordered(found)
    scope, budget = scope_of(file), Budget()
    for item in file.items:
        if isinstance(item, ast.Function | ast.Layout) or budget.left < 0:
            continue
        if all(p.default is not None or p.runtime for p in item.parameters):
            own: list[Diagnostic] = []
            lower_item(item, scope, {}, own, budget)
            if isinstance(item, ast.Pattern):  # the layout is its user's
                own = [one for one in own if one.code not in _OF_A_LAYOUT]
            found.extend(own)
    return ordered(found)
