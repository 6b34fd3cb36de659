"""Elements of inputs and coordinates of tokens, as arithmetic with guards.

In: an input and its indices, or a token's position and an axis of the layout. Out: a
`Number` or `Truths` whose guards say where it means something. Not its job: names and
types (`check.types`), expanding the indices (`check.expand`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from patternc.check import terms
from patternc.check.environment import Environment
from patternc.check.terms import Number, Truths
from patternc.diagnostics import Diagnostic, Label
from patternc.ir.fold import fold_int
from patternc.ir.nodes import (
    Axis,
    AxisKind,
    Binary,
    CompareOp,
    Const,
    Element,
    Index,
    Input,
    InputAxis,
    IntExpr,
    IntOp,
    Segment,
)
from patternc.ir.selection import (
    Selection,
)
from patternc.ir.text import print_expr
from patternc.limits import POSITION
from patternc.source import Span

INT_INPUT = (-(2**31), 2**31 - 1)
"""The least and the greatest value of an integer input: calls hand over 32 bits."""


@dataclass(frozen=True, slots=True)
class Position:
    """The integer `(axis - shift) // divisor`, with a divisor of at least 1."""

    axis: Axis
    shift: int
    divisor: int


def position_of(expr: IntExpr) -> Position | None:
    """How an expression counts positions of one axis, if it does nothing else."""
    match expr:
        case Index(axis=axis):
            return Position(axis, 0, 1)
        case Binary(op=IntOp.ADD, lhs=inner, rhs=Const(value=shift)):
            return _shifted(position_of(inner), -shift)
        case Binary(op=IntOp.ADD, lhs=Const(value=shift), rhs=inner):
            return _shifted(position_of(inner), -shift)
        case Binary(op=IntOp.SUB, lhs=inner, rhs=Const(value=shift)):
            return _shifted(position_of(inner), shift)
        case Binary(op=IntOp.FLOORDIV, lhs=inner, rhs=Const(value=by)) if by > 0:
            found = position_of(inner)
            return found and replace(found, divisor=found.divisor * by)
    return None


def _shifted(inner: Position | None, shift: int) -> Position | None:
    """`(p - s) // d - c` is `(p - s - c * d) // d`."""
    return inner and replace(inner, shift=inner.shift + shift * inner.divisor)


def read_number(
    table: Input, indices: Sequence[Number], span: Span, env: Environment
) -> Number:
    """An element of an integer input (or of a truth-value one, as 0 or 1)."""
    lo, hi = INT_INPUT if table.element is Element.INT else (0, 1)
    number = terms.read(table.name, indices, lo, hi, span)
    return terms.guarded(number, read_guards(table, indices, span, env))


def read_guards(
    table: Input, indices: Sequence[Number], span: Span, env: Environment
) -> tuple[Truths, ...]:
    """What must hold for every index to be inside its axis, and is not known to."""
    axes = [axis for axis in table.axes if axis.kind is not AxisKind.BATCH]
    found: list[Truths] = []
    for axis, index in zip(axes, indices, strict=True):
        if index.lo < 0:
            zero = terms.constant(0, span)
            found.append(terms.compare(CompareOp.LE, zero, index, span))
        found.extend(_end_guards(axis, index, span, env))
    return tuple(found)


def member(
    selection: Selection, keys: Sequence[Number], span: Span, env: Environment
) -> Truths:
    """Whether a selection of the head holds these keys.

    A key that is no key of the selection's map in the call is not held.
    """
    head = env.index("h", span)
    if head is None:
        raise LookupError("h")
    indices, guards = [head], []
    for place, key in enumerate(keys):
        first, size = selection.first(place), selection.size(place)
        index = key
        if first:
            least = terms.parameter(first, -POSITION, POSITION, span)
            index = terms.binary(IntOp.SUB, key, least, span)
        if fold_int(key.expr) != selection.keys[place]:
            zero = terms.constant(0, span)
            count = terms.parameter(size, 0, POSITION, span)
            if first or key.lo < 0:
                guards.append(terms.compare(CompareOp.LE, zero, index, span))
            guards.append(terms.compare(CompareOp.LT, index, count, span))
        indices.append(index)
    element = terms.guarded(terms.read(selection.table, indices, 0, 1, span), guards)
    return terms.compare(CompareOp.NE, element, terms.constant(0, span), span)


def key_count_error(selection: Selection, given: int, span: Span) -> Diagnostic:
    """The error for a membership with a wrong number of keys."""
    keys = [print_expr(key) for key in selection.keys]
    message = f"`{selection.table}` is a set of {len(keys)} keys, {given} given"
    if not keys:
        message = f"`{selection.table}` holds or not, for a head: it has no keys"
    shown = keys[0] if len(keys) == 1 else f"({', '.join(keys)})"
    help_text = f"write `{shown} in {selection.table}`" if keys else "name it alone"
    others = (Label(selection.span, "selected here"),)
    return Diagnostic("arity", message, span, "", help_text, others)


def read_errors(
    table: Input, indices: Sequence[Number], span: Span
) -> Iterator[Diagnostic]:
    """An error for a query axis that is read at something else than its own."""
    axes = [axis for axis in table.axes if axis.kind is not AxisKind.BATCH]
    for axis, index in zip(axes, indices, strict=True):
        own = Position(Axis.QUERY, axis.shift, axis.divisor)
        if axis.kind is AxisKind.QUERY and position_of(index.expr) != own:
            yield _not_its_own(table, axis, span)


def _end_guards(
    axis: InputAxis, index: Number, span: Span, env: Environment
) -> list[Truths]:
    """`index < size` for the size of the axis, unless it is known."""
    match axis.kind:
        case AxisKind.HEAD:
            return _below(index, terms.constant(env.heads, span), span)
        case AxisKind.KV_HEAD:
            count = env.heads // env.group_size
            return _below(index, terms.constant(count, span), span)
        case AxisKind.SIZE:
            return _below(index, terms.constant(axis.size, span), span)
        case AxisKind.QUERY:
            return []  # read at its own expression only: see `read_errors`
        case AxisKind.KEY:
            at = position_of(index.expr)
            inside = at is not None and at.axis is Axis.KEY
            if at and inside and at.divisor == axis.divisor and at.shift >= axis.shift:
                return []  # k < N, always
            return _below(index, _key_count(axis, span, env), span)
        case AxisKind.BATCH | AxisKind.GROUP:
            raise TypeError("an axis that no program can index")


def _key_count(axis: InputAxis, span: Span, env: Environment) -> Number:
    """How many elements an axis over keys has: `(N - 1 - shift) // divisor + 1`."""
    length = env.index("N", span)
    if length is None:
        raise LookupError("N")
    if axis.divisor == 1:
        shift = terms.constant(axis.shift, span)
        return terms.binary(IntOp.SUB, length, shift, span) if axis.shift else length
    before = terms.constant(1 + axis.shift, span)
    last = terms.binary(IntOp.SUB, length, before, span)
    divisor = terms.constant(axis.divisor, span)
    blocks = terms.binary(IntOp.FLOORDIV, last, divisor, span)
    return terms.binary(IntOp.ADD, blocks, terms.constant(1, span), span)


def _below(index: Number, size: Number, span: Span) -> list[Truths]:
    if index.hi < size.lo:
        return []
    return [terms.compare(CompareOp.LT, index, size, span)]


def _not_its_own(table: Input, axis: InputAxis, span: Span) -> Diagnostic:
    wanted = "q" if axis.shift == 0 else f"(q - {axis.shift})"
    if axis.divisor != 1:
        wanted = f"{wanted} // {axis.divisor}"
    message = f"`{table.name}` is declared over queries: it is read at `{wanted}` only"
    help_text = "an input over `k` can be read anywhere"
    return Diagnostic("bad-read", message, span, "", help_text)


def coordinate(
    token: Number, segment: Segment, axis: str, span: Span, env: Environment
) -> Number:
    """`token.axis`: `(token - start) // stride % size`, guarded by the segment."""
    names = [name for name, _ in segment.axes]
    place = names.index(axis)
    stride = 1
    for _, inner in segment.axes[place + 1 :]:
        stride *= inner
    result = token
    if segment.start != 0:
        start = terms.constant(segment.start, span)
        result = terms.binary(IntOp.SUB, result, start, span)
    if stride != 1:
        by = terms.constant(stride, span)
        result = terms.binary(IntOp.FLOORDIV, result, by, span)
    if place != 0:
        size = terms.constant(segment.axes[place][1], span)
        result = terms.binary(IntOp.MOD, result, size, span)
    return terms.guarded(result, segment_guards(token, segment, span))


def segment_guards(token: Number, segment: Segment, span: Span) -> tuple[Truths, ...]:
    """`start <= token < start + size`, without what is known."""
    found: list[Truths] = []
    if token.lo < segment.start:
        start = terms.constant(segment.start, span)
        found.append(terms.compare(CompareOp.LE, start, token, span))
    end = segment.start + segment.size
    found.extend(_below(token, terms.constant(end, span), span))
    return tuple(found)


def in_segment(token: Number, segment: Segment, span: Span) -> Truths:
    """`token in segment`."""
    found = segment_guards(token, segment, span)
    if not found:
        return terms.truth(True, span)
    return terms.all_of(found, span)


def padding(token: Number, segment: Segment, valid: Number, span: Span) -> Truths:
    """Whether a token lies in the segment, behind the tokens that count."""
    start = terms.constant(segment.start, span)
    offset = terms.binary(IntOp.SUB, token, start, span) if segment.start else token
    behind = terms.compare(CompareOp.GE, offset, valid, span)
    return terms.all_of((*segment_guards(token, segment, span), behind), span)
