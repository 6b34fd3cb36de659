"""Checks on declarations: names, parameters, recursion.

In: a file. Out: diagnostics. Not its job: what bodies compute (`check.types`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from patternc import stdlib_patterns
from patternc.check.inputs import inputs_of
from patternc.check.kinds import is_decimal
from patternc.check.scope import (
    CALL_NAMES,
    LOAD_NAMES,
    RESERVED,
    RESERVED_WORDS,
    Scope,
)
from patternc.diagnostics import Diagnostic, Label, Severity
from patternc.syntax import ast
from patternc.syntax.measure import children


def declaration_errors(file: ast.File) -> Iterator[Diagnostic]:
    """Reserved, repeated and hiding names; parameters that cannot be."""
    seen: dict[str, ast.Name] = {}
    for item in file.items:
        yield from _reserved(item.name)
        yield from _repeated(item.name, seen)
        if _hides_standard(item, file):
            yield Diagnostic(
                "hides-standard",
                f"`{item.name.text}` hides the standard pattern of that name",
                item.name.span,
                "this file now uses this one",
                severity=Severity.WARNING,
            )
        yield from _parameter_errors(item)
        if isinstance(item, ast.Attention):
            for given in inputs_of(item).values():
                yield from _reserved(given.name)
                yield from _argument(given.name, CALL_NAMES, "every call")


def _hides_standard(item: ast.Item, file: ast.File) -> bool:
    """Whether a standard pattern has the item's name; its own file does not count."""
    name = item.name.text
    hides = isinstance(item, ast.Pattern | ast.Function)
    if not hides or name not in stdlib_patterns.names():
        return False
    return file.source.text != stdlib_patterns.text(name)


def _reserved(name: ast.Name) -> Iterator[Diagnostic]:
    if name.text in RESERVED:
        message = f"`{name.text}` is reserved by the language"
        help_text = "use another name"
        if len(name.text) == 1:
            help_text = "use a longer name: the language has `qkhgbN`, `QKV` and `sov`"
        yield Diagnostic("reserved-name", message, name.span, "", help_text)
    elif name.text in RESERVED_WORDS:
        message = f"`{name.text}` is a word of the language"
        yield Diagnostic("reserved-name", message, name.span, "", "use another name")


def _argument(
    name: ast.Name, taken: frozenset[str], whose: str
) -> Iterator[Diagnostic]:
    """An error for a name that is passed by keyword beside arguments of that name."""
    if name.text in taken and name.text not in RESERVED:
        message = f"`{name.text}` is an argument of {whose}"
        label = "its value could not be told from that"
        yield Diagnostic("reserved-name", message, name.span, label, "use another name")


def _repeated(name: ast.Name, seen: dict[str, ast.Name]) -> Iterator[Diagnostic]:
    first = seen.setdefault(name.text, name)
    if first is not name:
        yield Diagnostic(
            "duplicate-name",
            f"`{name.text}` is declared twice",
            name.span,
            "declared again here",
            others=(Label(first.span, "first declared here"),),
        )


def _parameter_errors(item: ast.Item) -> Iterator[Diagnostic]:
    seen: dict[str, ast.Name] = {}
    optional: ast.Parameter | None = None
    for parameter in item.parameters:
        if parameter.name.text != "b" or isinstance(item, ast.Attention):
            yield from _reserved(parameter.name)  # `block_diagonal(b)` is a b too
        if isinstance(item, ast.Attention):
            yield from _argument(parameter.name, LOAD_NAMES, "`patternc.load`")
            if parameter.runtime:
                yield from _argument(parameter.name, CALL_NAMES, "every call")
        yield from _repeated(parameter.name, seen)
        yield from _kind_errors(item, parameter)
        if parameter.default is not None:
            optional = parameter
        elif optional is not None and not isinstance(item, ast.Attention):
            yield Diagnostic(
                "bad-parameter",
                f"`{parameter.name.text}` needs a default, as `{optional.name.text}`"
                " before it has one",
                parameter.span,
                others=(Label(optional.span, "has a default"),),
            )


def _kind_errors(item: ast.Item, parameter: ast.Parameter) -> Iterator[Diagnostic]:
    whole = isinstance(item, ast.Attention)
    if parameter.runtime and not whole:
        yield Diagnostic(
            "bad-parameter",
            "only an attention has run-time parameters",
            parameter.span,
            help="leave `runtime` out: an argument may be a run-time parameter",
        )
    is_float = is_decimal(parameter)
    if is_float and parameter.runtime:
        message = "a run-time parameter is an integer"
        yield Diagnostic("bad-parameter", message, parameter.span)
    elif is_float and not whole:
        message = "the parameters of patterns and functions are integers"
        yield Diagnostic("bad-parameter", message, parameter.span)


def recursion_errors(scope: Scope) -> Iterator[Diagnostic]:
    """One error for each cycle of declarations, found without recursion."""
    done: set[str] = set()
    for root in scope.declared:
        path: dict[str, None] = {}  # in the order entered
        pending = [(root, False)]
        while pending:
            name, leaving = pending.pop()
            if leaving:
                del path[name]
                done.add(name)
                continue
            if name in path:
                entered = list(path)
                yield _cycle(scope, [*entered[entered.index(name) :], name])
                continue
            if name in done:
                continue
            path[name] = None
            pending.append((name, True))
            used = _used(scope.declared[name])
            pending.extend((n, False) for n in used if n in scope.declared)


def _used(item: ast.Pattern | ast.Function) -> dict[str, ast.Name]:
    """The names that a body reads, with their first places; parameters left out."""
    own = {parameter.name.text for parameter in item.parameters}
    found: dict[str, ast.Name] = {}
    pending = [item.body]
    while pending:
        expr = pending.pop()
        name = expr.name if isinstance(expr, ast.Call) else expr
        if isinstance(name, ast.Name) and name.text not in own:
            found.setdefault(name.text, name)
        pending.extend(reversed(children(expr)))
    return found


def _cycle(scope: Scope, names: list[str]) -> Diagnostic:
    """`names` starts and ends with the same declaration."""
    links = [_used(scope.declared[name])[after] for name, after in pairwise(names)]
    shown = names if len(names) < 9 else [*names[:4], "...", *names[-4:]]
    return Diagnostic(
        "recursion",
        f"`{names[0]}` is defined by itself",
        links[-1].span,
        " -> ".join(shown),
        "a pattern cannot be recursive",
        tuple(
            Label(link.span, f"`{name}` uses `{link.text}`")
            for name, link in zip(names[:4], links[:-1], strict=False)
        ),
    )
