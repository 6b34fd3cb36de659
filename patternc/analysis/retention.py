"""KV retention: the keys that a decoder must keep.

In: a mask. Out: for each head and each moment t the keys `0 <= k <= t` that the query
at t or a later one may see, as an isl set, and their greatest number. Not its job:
deciding an assertion (`analysis.prove`).
"""

from __future__ import annotations

from dataclasses import dataclass

import islpy as isl

from patternc.analysis.loops import Loop, disjoint, row_loops
from patternc.analysis.sets import (
    SetBuilder,
    param_id,
    parameter_names,
    params_of_set,
    whole_number,
)
from patternc.ir.nodes import (
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    IntOp,
)
from patternc.ir.walk import axes_of, params_of


@dataclass(frozen=True, slots=True)
class Excess:
    """A moment at which a head must keep more keys than allowed.

    `steps` are the values of the parameters that are left open, in their order.
    """

    head: int
    moment: int
    length: int
    steps: tuple[int, ...] = ()


def retained(mask: BoolExpr, heads: int, context: isl.Context) -> isl.Set:
    """`{ [t, k] : 0 <= k <= t and some q >= t sees k }`, parametric in h and N.

    And in the run-time parameters that the mask reads.
    """
    names = parameter_names(axes_of(mask) | {Axis.LENGTH}, sorted(params_of(mask)))
    pairs = SetBuilder(context, ("q", "k"), names)
    inside = pairs.where("0 <= k < N and 0 <= q < N").intersect(pairs.known(heads))
    visible = pairs.set_of(mask).intersect(inside)
    text = f"[{', '.join(names)}] -> {{ [q, k] -> [t, k] : 0 <= k <= t <= q }}"
    return visible.apply(isl.Map.read_from_str(context, text)).coalesce()


def excess(
    mask: BoolExpr,
    heads: tuple[int, ...],
    total_heads: int,
    bound: int,
    context: isl.Context,
    length: int | None = None,
    steps: tuple[str, ...] = (),
) -> Excess | None:
    """The first moment with more than `bound` retained keys, or None.

    Decided for every length, or for one if `length` is given, and for every value from
    0 on of the run-time parameters `steps`: the number of keys is a piecewise
    quasi-affine function of the moment (the lengths of disjoint loops added up), and
    isl compares it with the bound. Raises `NotAffine`, `TooHard` or `NoLoop`.
    """
    keys = retained(mask, total_heads, context)
    names = params_of_set(keys)
    known = SetBuilder(context, (), names).known(total_heads).params()
    open_dims = tuple(param_id(step) for step in steps)
    # the loops below call the moment `q`
    moments = SetBuilder(context, ("N", "h", Axis.QUERY.value, *open_dims), ())
    chosen = " or ".join(f"h = {head}" for head in heads)
    only = "".join(f" and {dim} >= 0" for dim in open_dims)
    only += "" if length is None else f" and N = {length}"
    domain = moments.where(f"0 <= q < N and ({chosen}){only}")
    total = moments.affine(Const(0))
    for piece in disjoint(keys):
        for loop in row_loops(piece, Axis.QUERY, known):
            total = total.union_add(_loop_size(loop, moments))
    too_many = total.gt_set(moments.affine(Const(bound))).intersect(domain)
    if too_many.is_empty():
        return None
    length, head, moment, *at = least_point(too_many)
    return Excess(head, moment, length, tuple(at))


def _loop_size(loop: Loop, moments: SetBuilder) -> isl.PwAff:
    """The number of points a loop visits, defined where it visits any."""
    span = Binary(IntOp.SUB, loop.hi, loop.lo)
    rounded = Binary(IntOp.ADD, span, Const(loop.step - 1))
    size = moments.affine(Binary(IntOp.FLOORDIV, rounded, Const(loop.step)))
    some = moments.set_of(Compare(CompareOp.GT, span, Const(0)))
    return size.intersect_domain(some.intersect(moments.set_of(loop.guard)))


def least_point(points: isl.Set) -> list[int]:
    """The coordinates of the lexicographically least point."""
    least = points.lexmin().sample_point()
    count = points.dim(isl.dim_type.set)
    return [
        whole_number(least.get_coordinate_val(isl.dim_type.set, at))
        for at in range(count)
    ]
