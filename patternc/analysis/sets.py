"""Patterns as exact integer sets, through isl.

In: an IR expression. Out: an isl set of points `[q, k]`, parametric in the head `h`,
the length `N` and the run-time parameters. Not its job: tiles (`plan.tiling`), proofs
(`analysis.prove`).

Only quasi-affine expressions are sets: sums, multiples, `//` and `%` by constants,
`min`, `max`, `abs`. A product or a division of two symbols raises `NotAffine`. isl's
work is bounded: what takes too many operations raises `TooHard`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

import islpy as isl

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Expr,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)

OPERATION_LIMIT = 400_000
"""isl's own count of basic steps: four times what the hardest published pattern takes."""


class NotAffine(Exception):
    """The expression is not quasi-affine; `culprit` is the part that is not."""

    def __init__(self, culprit: Expr, reason: str) -> None:
        self.culprit = culprit
        self.reason = reason
        super().__init__(reason)


class TooHard(Exception):
    """isl gave up: the operation limit was reached."""


@contextmanager
def bounded_context(operations: int = OPERATION_LIMIT) -> Iterator[isl.Context]:
    """An isl context in which at most `operations` steps may be taken."""
    context = isl.Context()
    context.set_max_operations(operations)
    try:
        yield context
    except isl.Error as error:
        if not _is_exhausted(context):
            raise
        raise TooHard(_TOO_MUCH) from error


def whole_number(value: isl.Val) -> int:
    """An integer of isl. Raises `TooHard` if its steps are used up.

    Then isl gives no text of the number, and no error either.
    """
    text = value.to_str()
    if text is None:
        raise TooHard(_TOO_MUCH)
    return int(text)


_TOO_MUCH = "deriving it exactly takes too much work"


def _is_exhausted(context: isl.Context) -> bool:
    """Whether the steps are used up: then isl fails at everything, even at reading.

    What it says of the first failure may be of anything, a syntax error for example.
    """
    try:
        isl.Set.read_from_str(context, "{ [x] : x >= 0 }")
    except isl.Error:
        return True
    return False


def param_id(name: str) -> str:
    """The isl name of a run-time parameter: apart from every axis name."""
    return f"p_{name}"


@dataclass(frozen=True)
class SetBuilder:
    """Makes sets over `dims` with parameters `params`, all in one context.

    Axes in `dims` are set dimensions in that order; `h`, `N` and the run-time
    parameters (as `param_id`) are looked up among `params` unless they are in `dims`.
    """

    context: isl.Context
    dims: tuple[str, ...]
    params: tuple[str, ...]

    def space(self) -> isl.Space:
        """The space of every set that this builder makes."""
        return isl.Space.create_from_names(
            self.context, set=list(self.dims), params=list(self.params)
        )

    def universe(self) -> isl.Set:
        """All points."""
        return isl.Set.universe(self.space())

    def where(self, condition: str) -> isl.Set:
        """The points that satisfy an isl condition written by the compiler itself."""
        params, dims = ", ".join(self.params), ", ".join(self.dims)
        text = f"[{params}] -> {{ [{dims}] : {condition} }}"
        return isl.Set.read_from_str(self.context, text)

    def known(self, heads: int) -> isl.Set:
        """What always holds: the head is below `heads`, the length at least 1."""
        facts = ["1 = 1"]
        if Axis.HEAD.value in self.params:
            facts.append(f"0 <= h < {heads}")
        if Axis.LENGTH.value in self.params:
            facts.append("N >= 1")
        return self.where(" and ".join(facts))

    def tile_map(self, block_q: int, block_k: int) -> isl.Map:
        """`{ [q, k] -> [qt, kt] }` for tiles of block_q x block_k pairs."""
        text = (
            f"[{', '.join(self.params)}] -> {{ [q, k] -> [qt, kt] : "
            f"qt = floor(q / {block_q}) and kt = floor(k / {block_k}) }}"
        )
        return isl.Map.read_from_str(self.context, text)

    def set_of(self, expr: BoolExpr) -> isl.Set:
        """The points at which `expr` is true. Raises `NotAffine`."""
        match expr:
            case Truth():
                space = self.space()
                return isl.Set.universe(space) if expr.value else isl.Set.empty(space)
            case Compare():
                return _compare(expr.op, self.affine(expr.lhs), self.affine(expr.rhs))
            case All():
                points = self.universe()
                for term in expr.terms:
                    points = points.intersect(self.set_of(term))
                return points
            case Any():
                points = isl.Set.empty(self.space())
                for term in expr.terms:
                    points = points.union(self.set_of(term))
                return points.coalesce()
            case Not():
                return self.set_of(expr.term).complement()
            case _:
                assert_never(expr)

    def affine(self, expr: IntExpr) -> isl.PwAff:
        """The piecewise quasi-affine function of an expression. Raises `NotAffine`."""
        match expr:
            case Const():
                return self._constant(expr.value)
            case Index():
                return self._variable(expr.axis.value)
            case Param():
                return self._variable(param_id(expr.name))
            case Abs():
                inner = self.affine(expr.operand)
                return inner.max(inner.neg())
            case Read():
                raise NotAffine(expr, f"it reads the input `{expr.table}`")
            case Binary():
                return self._binary(expr)
            case _:
                assert_never(expr)

    def _constant(self, value: int) -> isl.PwAff:
        local = isl.LocalSpace.from_space(self.space())
        number = isl.Val.int_from_si(self.context, value)
        return isl.PwAff.from_aff(isl.Aff.val_on_domain(local, number))

    def _variable(self, name: str) -> isl.PwAff:
        local = isl.LocalSpace.from_space(self.space())
        if name in self.dims:
            kind, position = isl.dim_type.set, self.dims.index(name)
        else:
            kind, position = isl.dim_type.param, self.params.index(name)
        return isl.PwAff.from_aff(isl.Aff.var_on_domain(local, kind, position))

    def _binary(self, expr: Binary) -> isl.PwAff:
        lhs, rhs = self.affine(expr.lhs), self.affine(expr.rhs)
        match expr.op:
            case IntOp.ADD:
                return lhs.add(rhs)
            case IntOp.SUB:
                return lhs.sub(rhs)
            case IntOp.MIN:
                return lhs.min(rhs)
            case IntOp.MAX:
                return lhs.max(rhs)
            case IntOp.MUL:
                if not (lhs.is_cst() or rhs.is_cst()):
                    raise NotAffine(expr, "a product of two symbols is not affine")
                return lhs.mul(rhs)
            case IntOp.FLOORDIV | IntOp.MOD:
                divisor = _constant_value(rhs)
                if divisor is None:
                    reason = f"`{expr.op.value}` by a symbol is not affine"
                    raise NotAffine(expr, reason)
                return _divide(expr.op, lhs, divisor)
            case _:
                assert_never(expr.op)


def _constant_value(function: isl.PwAff) -> isl.Val | None:
    """The value of a function that is one constant everywhere, else None."""
    if not function.is_cst() or function.n_piece() != 1:
        return None
    pieces: list[isl.Aff] = []
    function.foreach_piece(lambda _, aff: pieces.append(aff))
    return pieces[0].get_constant_val()


def _divide(op: IntOp, value: isl.PwAff, divisor: isl.Val) -> isl.PwAff:
    """Floor division or its remainder; the divisor is not 0 (checked before)."""
    if divisor.is_neg():  # a // -c == -a // c, and isl divides by positive numbers
        quotient = value.neg().scale_down_val(divisor.neg()).floor()
    else:
        quotient = value.scale_down_val(divisor).floor()
    if op is IntOp.FLOORDIV:
        return quotient
    return value.sub(quotient.scale_val(divisor))


def _compare(op: CompareOp, lhs: isl.PwAff, rhs: isl.PwAff) -> isl.Set:
    match op:
        case CompareOp.LT:
            return lhs.lt_set(rhs)
        case CompareOp.LE:
            return lhs.le_set(rhs)
        case CompareOp.GT:
            return lhs.gt_set(rhs)
        case CompareOp.GE:
            return lhs.ge_set(rhs)
        case CompareOp.EQ:
            return lhs.eq_set(rhs)
        case CompareOp.NE:
            return lhs.ne_set(rhs)
        case _:
            assert_never(op)


def params_of_set(points: isl.Set) -> tuple[str, ...]:
    """The names of a set's parameters, in its own order."""
    count = points.dim(isl.dim_type.param)
    names = (points.get_dim_name(isl.dim_type.param, at) for at in range(count))
    return tuple(str(name) for name in names)


def parameter_names(axes: frozenset[Axis], params: Sequence[str]) -> tuple[str, ...]:
    """The isl parameters that an expression over `axes` and `params` needs."""
    names = [axis.value for axis in (Axis.HEAD, Axis.LENGTH) if axis in axes]
    return tuple(names + [param_id(name) for name in sorted(params)])


@dataclass(frozen=True)
class TileRelation:
    """The tiles `[qt, kt]` of a set of pairs `[q, k]`: all FULL, or PARTIAL."""

    full: isl.Set
    partial: isl.Set


def tile_relation(visible: isl.Set, domain: isl.Set, to_tiles: isl.Map) -> TileRelation:
    """The live tiles of `visible`, which lies in `domain`.

    With `live` the image of the visible pairs and `dead` that of the others, a tile
    is FULL if it is live and not dead, PARTIAL if it is both.
    """
    live = visible.apply(to_tiles).coalesce()
    dead = domain.subtract(visible).apply(to_tiles).coalesce()
    return TileRelation(live.subtract(dead), live.intersect(dead))
