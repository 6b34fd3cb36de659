"""Layouts: what is wrong with one as written, and the segments of the IR.

In: `layout name = ...` and the attention that uses it. Out: diagnostics, an `ir.Layout`,
and the padding of its segments. Not its job: coordinates (`check.reads`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from patternc.check import reads, terms
from patternc.check.environment import Environment
from patternc.check.terms import Number, Truths
from patternc.check.values import constant_of
from patternc.diagnostics import Diagnostic, Label
from patternc.ir.nodes import AxisKind, CompareOp, Element, Layout, Segment
from patternc.limits import POSITION
from patternc.syntax import ast

WHOLE = "all"
"""What an `order` calls the whole sequence."""


def layout_errors(layout: ast.Layout) -> Iterator[Diagnostic]:
    """What can be said without sizes: names given twice, arguments that do not fit."""
    segments: dict[str, ast.Name] = {}
    axes: dict[str, ast.Name] = {}
    for segment in layout.segments:
        if segment.name.text == WHOLE:
            message = f"`{WHOLE}` is the whole sequence, not a segment"
            yield Diagnostic("reserved-name", message, segment.name.span)
        yield from _repeated(segment.name, segments)
        yield from _argument_errors(segment)
        for argument in sizes_of(segment):
            if argument.name is not None:
                yield from _repeated(argument.name, axes)


def sizes_of(segment: ast.Segment) -> tuple[ast.Argument, ...]:
    """The arguments of a segment but `valid`."""
    return tuple(part for part in segment.arguments if not _is_valid(part))


def valid_of(segment: ast.Segment) -> ast.Argument | None:
    """The argument `valid`, if there is one."""
    return next((part for part in segment.arguments if _is_valid(part)), None)


def _is_valid(argument: ast.Argument) -> bool:
    return argument.name is not None and argument.name.text == "valid"


def _repeated(name: ast.Name, seen: dict[str, ast.Name]) -> Iterator[Diagnostic]:
    first = seen.setdefault(name.text, name)
    if first is not name:
        message = f"`{name.text}` is given twice in this layout"
        others = (Label(first.span, "first given here"),)
        yield Diagnostic("duplicate-name", message, name.span, "", "", others)


def _argument_errors(segment: ast.Segment) -> Iterator[Diagnostic]:
    """A segment has one size, or named axes; and at most one `valid`."""
    sizes = sizes_of(segment)
    unnamed = [argument for argument in sizes if argument.name is None]
    if not sizes or (unnamed and len(sizes) > 1):
        message = "a segment has one size, or a name and a size for each axis"
        span = unnamed[-1].span if unnamed else segment.span
        help_text = "write `text[226]` or `video[f = 13, y = 30, x = 45]`"
        yield Diagnostic("bad-layout", message, span, "", help_text)
    counts = [part for part in segment.arguments if _is_valid(part)]
    for again in counts[1:]:
        yield Diagnostic("bad-layout", "`valid` is given twice", again.span)
    for argument in counts[:1]:
        if not isinstance(argument.value, ast.Name):
            message = "`valid` is a run-time parameter or an input over `b`"
            help_text = "declare one, such as `input length[b] : int`"
            yield Diagnostic("bad-layout", message, argument.value.span, "", help_text)


def valid_errors(layout: ast.Layout, item: ast.Attention) -> Iterator[Diagnostic]:
    """Errors for a `valid` that the attention does not have, or not as a number."""
    runtime = {p.name.text for p in item.parameters if p.runtime}
    lengths = {
        clause.name.text
        for clause in item.clauses
        if isinstance(clause, ast.Input)
        and clause.element is Element.INT
        and clause.axes in ((), (ast.Name("b"),))
    }
    for segment in layout.segments:
        argument = valid_of(segment)
        if argument is None or not isinstance(argument.value, ast.Name):
            continue
        name = argument.value
        if name.text not in runtime | lengths:
            message = f"`{name.text}` is no valid length of `{item.name.text}`"
            help_text = f"declare `input {name.text}[b] : int` or a run-time parameter"
            yield Diagnostic("bad-layout", message, name.span, "", help_text)


def lower_layout(
    layout: ast.Layout, env: Environment, found: list[Diagnostic]
) -> Layout | None:
    """The segments with their sizes; mistakes go to `found`.

    Names in a layout are those of the attention that uses it.
    """
    segments: list[Segment] = []
    start, failed = 0, False
    for written in layout.segments:
        sizes = [_size(argument, env, found) for argument in sizes_of(written)]
        names = [argument.name for argument in sizes_of(written)]
        known = [size for size in sizes if size is not None]
        failed |= len(known) < len(sizes)
        axes = tuple(
            (name.text, size)
            for name, size in zip(names, known, strict=False)
            if name is not None
        )
        valid = valid_of(written)
        count = "" if valid is None else valid.value.span.text
        size = prod(known)
        segments.append(Segment(written.name.text, start, size, axes, count))
        start += size
        if start > POSITION:
            message = f"a layout has at most {POSITION} tokens"
            found.append(Diagnostic("bad-layout", message, written.span))
            return None
    return None if failed else Layout(layout.name.text, tuple(segments), layout.span)


def _size(
    argument: ast.Argument, env: Environment, found: list[Diagnostic]
) -> int | None:
    size = constant_of(argument.value, env, found)
    if size is not None and not 1 <= size <= POSITION:
        message = f"a size lies between 1 and {POSITION}, not {size}"
        found.append(Diagnostic("bad-layout", message, argument.value.span))
        return None
    return size


def padded(mask: Truths, env: Environment) -> Truths:
    """`(m & ~pad(q) & ~pad(k)) | (q == k & pad(q))`: padding sees only itself."""
    if env.layout is None:
        return mask
    span = env.layout.span
    query, key = env.index("q", span), env.index("k", span)
    if query is None or key is None:
        raise LookupError("q, k")
    short = [segment for segment in env.layout.segments if segment.valid]
    if not short:
        return mask
    env.budget.charge(len(short), span)
    pads = [
        terms.any_of(
            [
                reads.padding(token, segment, _count(segment, env), span)
                for segment in short
            ],
            span,
        )
        for token in (query, key)
    ]
    real = (mask, *(terms.complement(pad, span) for pad in pads))
    itself = (terms.compare(CompareOp.EQ, query, key, span), pads[0])
    return terms.any_of((terms.all_of(real, span), terms.all_of(itself, span)), span)


def _count(segment: Segment, env: Environment) -> Number:
    """How many tokens of a segment count."""
    if segment.valid in env.values:
        return env.values[segment.valid]
    table = env.inputs[segment.valid]
    if any(axis.kind is not AxisKind.BATCH for axis in table.axes):
        raise TypeError(f"not one number for each batch element: {table}")
    return reads.read_number(table, (), table.span, env)
