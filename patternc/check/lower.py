"""A checked file to the IR of one entry.

In: a file, the entry's name, values for its parameters. Out: an `ir.Attention`, or a
`PatternError` with all errors. Not its job: passes, proofs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from patternc.check.clauses import lower_clauses, with_steps
from patternc.check.environment import Budget, Environment, Exhausted
from patternc.check.expand import Expansion
from patternc.check.program import program_errors
from patternc.check.scope import Scope, did_you_mean, scope_of
from patternc.check.values import bind
from patternc.diagnostics import Diagnostic, PatternError, Severity, raise_errors
from patternc.ir.nodes import Attention, BoolExpr, HeadCase
from patternc.limits import DIAGNOSTICS
from patternc.source import Span
from patternc.syntax import ast

Entry = ast.Attention | ast.Pattern


def entries(file: ast.File) -> tuple[str, ...]:
    """The names that `lower` takes: the attentions, then the patterns."""
    attentions = [i.name.text for i in file.items if isinstance(i, ast.Attention)]
    patterns = [i.name.text for i in file.items if isinstance(i, ast.Pattern)]
    return (*attentions, *patterns)


def lower(
    file: ast.File,
    entry: str | None = None,
    values: Mapping[str, int | float] | None = None,
) -> Attention:
    """The IR of an attention, or of a pattern as one head.

    `entry` None means the file's only attention (or, without any, its only pattern).
    `values` bind parameters and replace the defaults of run-time ones. Raises
    `PatternError` with everything that is wrong with the file or the values.
    """
    raise_errors(ordered(program_errors(file)))
    item = _find(file, entry)
    found: list[Diagnostic] = []
    result = lower_item(item, scope_of(file), values or {}, found, Budget())
    raise_errors(ordered(found))
    if result is None:
        raise AssertionError(f"`{item.name.text}` failed without a reason")
    return result


def lower_item(
    item: Entry,
    scope: Scope,
    values: Mapping[str, int | float],
    found: list[Diagnostic],
    budget: Budget,
) -> Attention | None:
    """The IR of an item of a well-typed file; None if errors went to `found`."""
    try:
        return _lower_item(item, Environment(scope, {}, 1, 1, budget), values, found)
    except Exhausted as error:
        found.append(error.diagnostic)
        return None


def _lower_item(
    item: Entry,
    outer: Environment,
    values: Mapping[str, int | float],
    found: list[Diagnostic],
) -> Attention | None:
    """`lower_item` in an environment for one head that binds nothing."""
    binding = bind(item, values, outer, found)
    if any(diagnostic.is_error for diagnostic in found):
        return None
    env = replace(outer, values=binding.integers, decimals=binding.decimals)
    if isinstance(item, ast.Pattern):
        mask = _mask(item.body, env, found)
        if mask is None:
            return None
        case = HeadCase((0,), mask, item.span)
        name = item.name.text
        pattern = Attention(name, 1, 1, binding.runtime, (case,), span=item.span)
        return with_steps(pattern, binding.steps)
    return lower_clauses(item, env, binding, found)


def _mask(body: ast.Expr, env: Environment, found: list[Diagnostic]) -> BoolExpr | None:
    run = Expansion()
    try:
        expr = run.truths(body, env).expr
    except PatternError as error:
        found.extend(error.diagnostics)
        return None
    found.extend(run.found)
    return expr


def _find(file: ast.File, entry: str | None) -> Entry:
    """The item called `entry`; with None the only one there is."""
    items = [i for i in file.items if isinstance(i, ast.Attention | ast.Pattern)]
    at = Span(file.source, 0, 0)
    known = entries(file)
    shown = ", ".join(f"`{name}`" for name in known[:20]) or "none"
    if entry is not None:
        for item in items:
            if item.name.text == entry:
                return item
        message = f"there is no attention or pattern `{entry[:80]}` in this file"
        help_text = did_you_mean(entry, known) or f"the entries are {shown}"
        raise PatternError([Diagnostic("entry", message, at, "", help_text)])
    attentions = [item for item in items if isinstance(item, ast.Attention)]
    choice: list[Entry] = list(attentions or items)
    if len(choice) == 1:
        return choice[0]
    message = "say which entry: the file has " + (
        f"{len(choice)} of them" if choice else "no attention and no pattern"
    )
    raise PatternError(
        [Diagnostic("entry", message, at, "", f"the entries are {shown}")]
    )


def ordered(found: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Without repetitions, by file and place; what is beyond the limit is counted."""
    unique: dict[tuple[str, int, str, str], Diagnostic] = {}
    for item in found:
        key = (item.span.source.name, item.span.start, item.code, item.message)
        unique.setdefault(key, item)
    result = [unique[key] for key in sorted(unique)]
    if len(result) <= DIAGNOSTICS:
        return tuple(result)
    more = len(result) - DIAGNOSTICS
    message = f"{more} more findings are not shown"
    last = Diagnostic("more-findings", message, result[DIAGNOSTICS].span)
    if not any(item.is_error for item in result):
        last = replace(last, severity=Severity.WARNING)
    return (*result[:DIAGNOSTICS], last)
