"""The names of `let` clauses: what is wrong with them.

In: an attention. Out: diagnostics. Not its job: types (`check.let_types`), keys
(`check.maps`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from patternc.check.kinds import Type
from patternc.check.scope import CALL_NAMES, RESERVED, RESERVED_WORDS
from patternc.diagnostics import Diagnostic, Label, Severity
from patternc.source import Span
from patternc.syntax import ast
from patternc.syntax.measure import children, clause_expressions

_SCORES = "scores"


def let_errors(item: ast.Attention, types: Mapping[str, Type]) -> Iterator[Diagnostic]:
    """Reserved and repeated names, and lets that nothing reads (a warning).

    Of a let that is a mistake itself nothing more is said.
    """
    lets = [clause for clause in item.clauses if isinstance(clause, ast.Let)]
    if not lets:
        return
    first: dict[str, Span] = {}
    for parameter in item.parameters:
        first.setdefault(parameter.name.text, parameter.span)
    for clause in item.clauses:
        if isinstance(clause, ast.Input):
            first.setdefault(clause.name.text, clause.name.span)
    if _SCORES in first:
        message = f"`{_SCORES}` means the logits where an attention has a `let`"
        yield Diagnostic("reserved-name", message, first[_SCORES], "use another name")
    read = _names_read(item)
    for let in lets:
        name = let.name
        reserved = tuple(_reserved(name))
        yield from reserved
        before = first.setdefault(name.text, name.span)
        if before is not name.span:
            others = (Label(before, "first declared here"),)
            message = f"`{name.text}` is declared twice"
            yield Diagnostic("duplicate-name", message, name.span, "", "", others)
        elif not (reserved or name.text in read or types[name.text] is Type.UNKNOWN):
            message = f"`{name.text}` is never read"
            warning = Severity.WARNING
            yield Diagnostic("unread-let", message, name.span, severity=warning)


def _reserved(name: ast.Name) -> Iterator[Diagnostic]:
    text = name.text
    if text in RESERVED | RESERVED_WORDS or text == _SCORES:
        message = f"`{text}` is reserved by the language"
        yield Diagnostic("reserved-name", message, name.span, "", "use another name")
    elif text in CALL_NAMES:
        message = f"a `let` cannot be called `{text}`"
        label = "every call has an argument of that name"
        yield Diagnostic("reserved-name", message, name.span, label, "use another name")


def _names_read(item: ast.Attention) -> set[str]:
    """Every name that stands in an expression of the attention."""
    pending = [
        expr
        for clause in item.clauses
        if not isinstance(clause, ast.Input)
        for expr in clause_expressions(clause)
    ]
    found: set[str] = set()
    while pending:
        expr = pending.pop()
        if isinstance(expr, ast.Name):
            found.add(expr.text)
        pending.extend(children(expr))
    return found
