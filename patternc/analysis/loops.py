"""isl's loop nests as IR: the points of a set in closed form.

In: a one-dimensional set (of keys, or key tiles), parametric in everything else.
Out: `Loop`s, whose bounds are IR expressions. Not its job: deriving the set
(`plan.tiling`, `analysis.retention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import islpy as isl

from patternc.analysis.sets import whole_number
from patternc.ir.nodes import (
    KEY_TILE,
    UNBOUNDED,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Index,
    IntExpr,
    IntOp,
    Param,
    Truth,
)
from patternc.ir.walk import axes_of


class NoLoop(Exception):
    """isl's loop nest has a shape that a `KeyRange` can't express."""


@dataclass(frozen=True, slots=True)
class Loop:
    """`if guard: for kt in range(lo, hi, step)`."""

    lo: IntExpr
    hi: IntExpr
    step: int
    guard: BoolExpr


# isl's operations by name: `div` is exact, `zdiv_r` is only compared with 0, and the
# dividends of `pdiv_q` and `pdiv_r` are not negative, so that floors mean the same.
_INT_OPS: Mapping[str, IntOp] = {
    "max": IntOp.MAX,
    "min": IntOp.MIN,
    "add": IntOp.ADD,
    "sub": IntOp.SUB,
    "mul": IntOp.MUL,
    "div": IntOp.FLOORDIV,
    "fdiv_q": IntOp.FLOORDIV,
    "pdiv_q": IntOp.FLOORDIV,
    "pdiv_r": IntOp.MOD,
    "zdiv_r": IntOp.MOD,
}
_COMPARE_OPS: Mapping[str, CompareOp] = {
    "eq": CompareOp.EQ,
    "le": CompareOp.LE,
    "lt": CompareOp.LT,
    "ge": CompareOp.GE,
    "gt": CompareOp.GT,
}


def row_loops(relation: isl.Set, row: Axis, known: isl.Set) -> tuple[Loop, ...]:
    """The loops over `y` for each `x` of a set of `[x, y]`, with `x` named `row`."""
    last = relation.dim(isl.dim_type.param)
    columns = isl.Map.from_range(relation).move_dims(
        isl.dim_type.param, last, isl.dim_type.out, 0, 1
    )
    named = columns.range().set_dim_name(isl.dim_type.param, last, row.value)
    return loops_of(named, known)


def disjoint(points: isl.Set) -> list[isl.Set]:
    """Few convex pieces that do not overlap, in isl's order."""
    few = points.coalesce().make_disjoint().coalesce()
    pieces = [isl.Set.from_basic_set(piece) for piece in few.get_basic_sets()]
    overlap = any(
        not a.is_disjoint(b) for at, a in enumerate(pieces) for b in pieces[at + 1 :]
    )
    if overlap:  # coalescing may extend a piece into its neighbour
        exact = points.make_disjoint()
        pieces = [isl.Set.from_basic_set(piece) for piece in exact.get_basic_sets()]
    return pieces


def loops_of(tiles: isl.Set, context: isl.Set) -> tuple[Loop, ...]:
    """The loops that visit each point of a one-dimensional set once, in order.

    `context` holds what is known of the parameters. Raises `NoLoop`.
    """
    build = isl.AstBuild.from_context(context)
    identity = isl.Map.identity(tiles.get_space().map_from_set())
    schedule = isl.UnionMap.from_map(identity.intersect_domain(tiles))
    return tuple(_read_node(build.node_from_schedule_map(schedule), Truth(True)))


def _read_node(node: isl.AstNode, guard: BoolExpr) -> list[Loop]:
    kind = _node_kind(node)
    if kind == "block":
        children = node.block_get_children()
        parts = [children.get_at(at) for at in range(children.n_ast_node())]
        return [loop for part in parts for loop in _read_node(part, guard)]
    if kind == "if_":
        condition = _read_bool(node.if_get_cond())
        loops = _read_node(node.if_get_then(), _both(guard, condition))
        if node.if_has_else():
            raise NoLoop("a loop nest with an `else`")
        return loops
    if kind == "for_":
        return [_read_for(node, guard)]
    if kind == "user":  # a single tile: isl calls it with its value
        tile = _read_int(node.user_get_expr().get_op_arg(1))
        return [Loop(tile, _fold_one(offset(tile, 1)), 1, guard)]
    raise NoLoop("a loop nest of a shape that isl was not seen to make")


def _read_for(node: isl.AstNode, guard: BoolExpr) -> Loop:
    lo = _read_int(node.for_get_init())
    step, body = node.for_get_inc(), node.for_get_body()
    if node.for_is_degenerate():
        raise NoLoop("a loop over one tile")  # isl writes it as a plain visit
    hi = _read_end(_read_bool(node.for_get_cond()))
    stride = _read_int(step)
    if not isinstance(stride, Const) or stride.value < 1:
        raise NoLoop("a loop with a symbolic step")
    return _finish(Loop(lo, hi, stride.value, guard), body)


def _read_end(condition: BoolExpr) -> IntExpr:
    """The exclusive end of a loop that runs while `condition` holds."""
    match condition:
        case Truth(value=True):
            return Const(UNBOUNDED)
        case Compare(op=CompareOp.LT, lhs=lhs, rhs=end) if lhs == KEY_TILE:
            return end
        case Compare(op=CompareOp.LE, lhs=lhs, rhs=last) if lhs == KEY_TILE:
            return Binary(IntOp.ADD, last, Const(1))
        case _:
            raise NoLoop("a loop whose end is not a bound")


def _finish(loop: Loop, body: isl.AstNode) -> Loop:
    """Check that the loop's body is just the visit of its tile."""
    if _node_kind(body) != "user":
        raise NoLoop("a loop that would scan empty tiles")
    for bound in (loop.lo, loop.hi, loop.guard):
        if Axis.KEY_TILE in axes_of(bound):
            raise NoLoop("a bound that depends on the key tile")
    return replace(loop, hi=_fold_one(loop.hi))


def _fold_one(expr: IntExpr) -> IntExpr:
    """`(x + c) + 1` as `x + (c + 1)`: the ends that isl writes as `<=`."""
    match expr:
        case Binary(op=IntOp.ADD, lhs=Const(value=a), rhs=Const(value=b)):
            return Const(a + b)
        case Binary(op=IntOp.ADD, lhs=x, rhs=Const(value=0)):
            return x
        case Binary(
            op=IntOp.ADD,
            lhs=Binary(op=IntOp.ADD | IntOp.SUB as op, lhs=x, rhs=Const(value=a)),
            rhs=Const(value=b),
        ):
            total = (a if op is IntOp.ADD else -a) + b
            return offset(x, total)
        case Binary(
            op=IntOp.ADD,
            lhs=Binary(op=IntOp.MIN | IntOp.MAX as op, lhs=x, rhs=y),
            rhs=Const() as one,
        ):
            left = _fold_one(Binary(IntOp.ADD, x, one))
            return Binary(op, left, _fold_one(Binary(IntOp.ADD, y, one)))
        case _:
            return expr


def offset(expr: IntExpr, by: int) -> IntExpr:
    """`expr + by`, written as people write it."""
    if by == 0:
        return expr
    if by < 0:
        return Binary(IntOp.SUB, expr, Const(-by))
    return Binary(IntOp.ADD, expr, Const(by))


def _both(a: BoolExpr, b: BoolExpr) -> BoolExpr:
    if a == Truth(True):
        return b
    return All((a, b))


def _node_kind(node: isl.AstNode) -> str:
    return isl.ast_node_type(node.get_type()).name


def _arguments(expr: isl.AstExpr) -> list[isl.AstExpr]:
    return [expr.get_op_arg(at) for at in range(expr.get_op_n_arg())]


def _read_int(expr: isl.AstExpr) -> IntExpr:
    kind = isl.ast_expr_type(expr.get_type()).name
    if kind == "int":
        return Const(whole_number(expr.get_val()))
    if kind == "id":
        return _read_name(str(expr.get_id().get_name()))
    operation = isl.ast_expr_op_type(expr.get_op_type()).name
    parts = [_read_int(part) for part in _arguments(expr)]
    if operation == "minus":
        return _negate(parts[0])
    if operation not in _INT_OPS:
        raise NoLoop(f"a bound with the operation `{expr.to_C_str()}`")
    result = parts[0]
    for part in parts[1:]:
        result = _combine(_INT_OPS[operation], result, part)
    return result


def _combine(op: IntOp, lhs: IntExpr, rhs: IntExpr) -> IntExpr:
    """`-x + c` as `c - x`: what isl prints is right, but not what people write."""
    match op, lhs, rhs:
        case IntOp.ADD, Binary(op=IntOp.SUB, lhs=Const(value=0), rhs=inner), _:
            return Binary(IntOp.SUB, rhs, inner)
        case _:
            return Binary(op, lhs, rhs)


def _negate(expr: IntExpr) -> IntExpr:
    if isinstance(expr, Const):
        return Const(-expr.value)
    return Binary(IntOp.SUB, Const(0), expr)


def _read_name(name: str) -> IntExpr:
    if name == "c0":  # isl's name for the only loop
        return KEY_TILE
    if name.startswith("p_"):
        return Param(name.removeprefix("p_"))
    return Index(Axis(name))


def _read_bool(expr: isl.AstExpr) -> BoolExpr:
    if isl.ast_expr_type(expr.get_type()).name == "int":
        return Truth(whole_number(expr.get_val()) != 0)
    operation = isl.ast_expr_op_type(expr.get_op_type()).name
    if operation in _COMPARE_OPS:
        lhs, rhs = _arguments(expr)
        return Compare(_COMPARE_OPS[operation], _read_int(lhs), _read_int(rhs))
    parts = tuple(_read_bool(part) for part in _arguments(expr))
    if operation in ("and_", "and_then"):
        return All(parts)
    if operation in ("or_", "or_else"):
        return Any(parts)
    raise NoLoop(f"a condition with the operation `{expr.to_C_str()}`")
