"""What chooses the keys of a call, step by step.

In: an attention whose selections are all made of maps that have kernels, or of blocks of
Q and K. Out: the steps of each selection: both the text of a module (`plan_text`) and the
plan of a package (`plan_facts`) say these and nothing else. Not its job: the kernels
(`estimate`), which maps have some (`fused`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from patternc.backends.probe import flat
from patternc.backends.triton.fused import Fused, Probe, SummedBy
from patternc.ir.nodes import (
    Attention,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    FloatExpr,
    FromInt,
    Index,
    IntExpr,
    IntOp,
    Param,
    Truth,
)
from patternc.ir.selected import placed_params
from patternc.ir.selection import (
    Choice,
    MapBinary,
    MapCall,
    MapExpr,
    MapFunction,
    MapNumber,
    MapOp,
    MapScale,
    MapValue,
    MapWhere,
    Product,
    Reduce,
    Reduction,
    Rows,
    Selection,
    Sharing,
    Softmax,
    Tokens,
    keys_of,
)
from patternc.ir.walk import axes_of, subexpressions, tables_of
from patternc.source import Span

Q_OFFSET, LAST = Param("q_offset"), Param("last")
"""In `ends`: the positions of the first and of the last query of a call."""

_LENGTH = Index(Axis.LENGTH)
_ZERO, _ONE = Const(0), Const(1)
_SIGNS = {MapOp.ADD: "+", MapOp.SUB: "-", MapOp.MUL: "*", MapOp.DIV: "/"}
_WHOLE = {
    MapOp.ADD: IntOp.ADD,
    MapOp.SUB: IntOp.SUB,
    MapOp.MUL: IntOp.MUL,
    MapOp.MIN: IntOp.MIN,
    MapOp.MAX: IntOp.MAX,
}


class Unplanned(Exception):
    """Something that neither the text of a module nor a package can plan."""

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span


@dataclass(frozen=True, slots=True)
class Sums:
    """The scores of a probe, by its number, summed while they are made."""

    probe: int
    how: Reduction
    by: SummedBy
    sizes: tuple[int, ...]
    over: Sharing


@dataclass(frozen=True, slots=True)
class Pooled:
    """Blocks of `size` rows of Q, or of K."""

    how: Reduction
    size: int


@dataclass(frozen=True, slots=True)
class EachRow:
    """Every row of Q, after some functions of its numbers, the first one first."""

    functions: tuple[MapFunction, ...]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Products of rows of Q, pooled or not, with pooled ones of K."""

    queries: Pooled | EachRow
    keys: Pooled


@dataclass(frozen=True, slots=True)
class Where:
    """The entries of step `operand` where a condition on their keys holds."""

    operand: int
    condition: BoolExpr


@dataclass(frozen=True, slots=True)
class Shares:
    """The softmax of step `operand` along its last key."""

    operand: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The live entries of step `operand`, added up over heads."""

    operand: int
    over: Sharing


Side = int | float | None
"""A step by its number, a number, or None: the call's scale."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`lhs sign rhs`, of two steps, or of one and a number."""

    sign: str
    lhs: Side
    rhs: Side


Step = Sums | Blocks | Where | Shares | Joined | Arithmetic


@dataclass(frozen=True, slots=True)
class SelectionSteps:
    """How one selection is made: the last step's numbers are ranked.

    `ends` are the least and the greatest value of each key, of Q_OFFSET, LAST and the
    length. `by_rows`: each value of the first key is a scope, and some of them are
    chosen at a time. `amount`, `least` and `most` are of the length and run-time
    parameters; TOP_P and ABOVE have the number `share` instead of an amount.
    """

    selection: Selection
    ends: tuple[tuple[IntExpr, IntExpr], ...]
    firsts: tuple[str, ...]
    by_rows: bool
    steps: tuple[Step, ...]
    amount: IntExpr | None
    share: float | None
    least: IntExpr | None
    most: IntExpr | None

    @property
    def moves(self) -> tuple[IntExpr, ...]:
        """How far each axis of the table begins behind the least value of its key."""
        starts = self.selection.starts_at_0
        return tuple(
            low if is_0 else _ZERO
            for (low, _), is_0 in zip(self.ends, starts, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Planning:
    """The probes and selections of a program, and the parameters that a plan takes."""

    probes: tuple[Probe, ...]
    selections: tuple[SelectionSteps, ...]
    params: dict[str, int | None]


def planning_of(attention: Attention, fused: Fused) -> Planning:
    """The steps of all selections. Raises `Unplanned`."""
    placed = placed_params(attention)
    params = {x.name: x.default for x in attention.params if x.name not in placed}
    steps = tuple(_selection(attention, fused, x) for x in attention.selections)
    return Planning(fused.probes, steps, params)


def least_rows(probe: Probe) -> Iterator[IntExpr]:
    """What the rows of a probe begin at, at least, beside the first query."""
    for term in flat(probe.condition):
        match term:
            case Compare(op=CompareOp.GE, lhs=Index(axis=Axis.QUERY), rhs=least):
                if axes_of(least) <= {Axis.LENGTH}:
                    yield least


def _selection(
    attention: Attention, fused: Fused, selection: Selection
) -> SelectionSteps:
    keys = selection.keys
    is_alone = selection.shared is Sharing.ALONE
    if selection.reach > 1:
        raise Unplanned(selection.span)
    if not is_alone and not isinstance(selection.values, Reduce):
        raise Unplanned(selection.span)
    by_rows = selection.per == (0,) and len(keys) == 2
    if not keys or len(keys) > 2 or (selection.per and not by_rows):
        raise Unplanned(selection.span)
    own = _Maps(fused, by_rows, selection.span, [])
    own.add(selection.values)
    if selection.always is not None:
        _check_condition(selection.always, selection.span)
    known = {param.name for param in attention.params}
    firsts = (selection.first(at) for at in range(len(keys)))
    return SelectionSteps(
        selection,
        tuple(ends_of(key, selection.span) for key in keys),
        tuple(name if name in known else "" for name in firsts),
        by_rows,
        tuple(own.steps),
        *_amounts(selection),
    )


def ends_of(key: IntExpr, span: Span) -> tuple[IntExpr, IntExpr]:
    """The least and the greatest value of a key in a call."""
    match key:
        case Index(axis=Axis.QUERY):
            return Q_OFFSET, LAST
        case Index(axis=Axis.KEY):
            return _ZERO, Binary(IntOp.SUB, _LENGTH, _ONE)
        case Binary(op=IntOp.FLOORDIV, lhs=inner, rhs=Const(value=size)) if size > 0:
            low, high = ends_of(inner, span)
            if low != _ZERO:
                low = Binary(IntOp.FLOORDIV, low, key.rhs)
            return low, Binary(IntOp.FLOORDIV, high, key.rhs)
        case Binary(op=IntOp.SUB, lhs=lhs, rhs=rhs):
            (low, high), (least, most) = ends_of(lhs, span), ends_of(rhs, span)
            if least != _ZERO:
                high = Binary(IntOp.SUB, high, least)
            return Binary(IntOp.SUB, low, most), high
        case Binary(op=IntOp.ADD, lhs=lhs, rhs=rhs):
            (low, high), (least, most) = ends_of(lhs, span), ends_of(rhs, span)
            if least != _ZERO:
                low = Binary(IntOp.ADD, low, least)
            return low, Binary(IntOp.ADD, high, most)
    raise Unplanned(span)


@dataclass(slots=True)
class _Maps:
    """The steps of one selection so far."""

    fused: Fused
    by_rows: bool
    span: Span
    steps: list[Step]

    def add(self, map_: MapExpr) -> int:
        """The number of the step that a map is; what it needs comes before it."""
        step = self._step(map_)
        self.steps.append(step)
        return len(self.steps) - 1

    def _step(self, map_: MapExpr) -> Step:
        match map_:
            case Reduce() if map_ in self.fused.sums:
                own = self.fused.sums[map_]
                return Sums(own.probe, map_.how, own.by, own.sizes, map_.over)
            case Product(lhs=Reduce() as lhs, rhs=Reduce() as rhs):
                queries = self._pooled(lhs, Tokens.QUERIES)
                return Blocks(queries, self._pooled(rhs, Tokens.KEYS))
            case Product(lhs=Rows() | MapCall() as lhs, rhs=Reduce() as rhs):
                return Blocks(self._each_row(lhs), self._pooled(rhs, Tokens.KEYS))
            case Reduce(how=Reduction.SUM) if _joins_heads(map_):
                return Joined(self.add(map_.operand), map_.over)
            case MapWhere():
                operand = self.add(map_.operand)
                _check_condition(map_.condition, self.span)
                return Where(operand, map_.condition)
            case Softmax() if len(keys_of(map_)) > 1 or not self.by_rows:
                return Shares(self.add(map_.operand))
            case MapBinary() if map_.op in _SIGNS:
                sides = self._side(map_.lhs), self._side(map_.rhs)
                if any(isinstance(side, int) for side in sides):
                    return Arithmetic(_SIGNS[map_.op], *sides)
        raise Unplanned(self.span)

    def _side(self, map_: MapExpr) -> Side:
        match map_:
            case MapNumber(value=value) if isfinite(value):
                return float(value)
            case MapScale():
                return None
            case _:
                return self.add(map_)

    def _each_row(self, side: MapExpr) -> EachRow:
        match side:
            case Rows(tokens=Tokens.QUERIES):
                return EachRow(())
            case MapCall(function=function, operand=operand):
                return EachRow((*self._each_row(operand).functions, function))
        raise Unplanned(self.span)

    def _pooled(self, side: Reduce, tokens: Tokens) -> Pooled:
        is_rows = isinstance(side.operand, Rows) and side.operand.tokens is tokens
        is_alone = side.over is Sharing.ALONE
        if side not in self.fused.pools or not is_rows or not is_alone:
            raise Unplanned(self.span)
        return Pooled(side.how, self.fused.pools[side])


def _joins_heads(map_: Reduce) -> bool:
    """Whether entries stay as they are, but for heads that are put together."""
    axes = (Axis.FIRST, Axis.SECOND)[: len(map_.keys)]
    is_own = map_.by == tuple(map(Index, axes))
    is_shared = map_.over is not Sharing.ALONE
    return is_own and is_shared and keys_of(map_.operand) == map_.keys


def _check_condition(condition: BoolExpr, span: Span) -> None:
    """A condition reads keys, the length and run-time parameters."""
    parts = subexpressions(condition)
    has_truth = any(isinstance(part, Truth) for part in parts)
    if has_truth or tables_of(condition) or Axis.HEAD in axes_of(condition):
        raise Unplanned(span)


def _amounts(
    selection: Selection,
) -> tuple[IntExpr | None, float | None, IntExpr | None, IntExpr | None]:
    """`amount` or `share`, `least` and `most`."""
    amount, span = selection.amount, selection.span
    least, most = (
        None if x is None else _whole(x, span)
        for x in (selection.least, selection.most)
    )
    if selection.choice is Choice.TOP:
        return _whole(amount, span), None, least, most
    has_bounds = selection.least is not None or selection.most is not None
    is_above = selection.choice is Choice.ABOVE
    if not isinstance(amount, MapNumber) or (is_above and has_bounds):
        raise Unplanned(span)
    if not isfinite(amount.value):
        raise Unplanned(span)
    return None, float(amount.value), least, most


def _whole(map_: MapExpr, span: Span) -> IntExpr:
    """A whole number that no data decides."""
    match map_:
        case MapNumber(value=value) if isfinite(value) and value == int(value):
            return Const(int(value))
        case MapValue(keys=(), value=value):
            return _integer(value, span)
        case MapBinary(op=op, lhs=lhs, rhs=rhs) if op in _WHOLE:
            return Binary(_WHOLE[op], _whole(lhs, span), _whole(rhs, span))
    raise Unplanned(span)


def _integer(value: FloatExpr, span: Span) -> IntExpr:
    match value:
        case FromInt(operand=operand):
            if not tables_of(operand) and axes_of(operand) <= {Axis.LENGTH}:
                return operand
    raise Unplanned(span)
