"""Whether conditions on the layer and the step can hold together, or leave one out.

In: conditions over the run-time integers `layer` and `step`, both at least 0, with no
head in them. Out: a layer and a step as an example, or None. Exact, through isl. Not
its job: heads (`check.cases`).
"""

from __future__ import annotations

from functools import lru_cache

import islpy as isl

from patternc.analysis.sets import (
    NotAffine,
    SetBuilder,
    TooHard,
    bounded_context,
    whole_number,
)
from patternc.ir.nodes import Axis, BoolExpr, Expr, Index, Param
from patternc.ir.walk import params_of, rewrite_bool

_AXES = {"layer": Axis.QUERY, "step": Axis.KEY}  # any two axes: a plane of points

OPERATIONS = 20_000
"""isl's basic steps for one question; a written condition takes some hundreds."""


class Undecided(Exception):
    """Which of the conditions hold together is beyond the exact sets."""


@lru_cache(maxsize=256)
def example(condition: BoolExpr) -> tuple[int, int] | None:
    """The least layer and step for which a condition holds, or None.

    Raises `Undecided`.
    """

    def rule(node: Expr) -> Expr:
        if isinstance(node, Param):
            return Index(_AXES[node.name])
        return node

    try:
        with bounded_context(OPERATIONS) as context:
            plane = SetBuilder(context, ("q", "k"), ())
            points = plane.set_of(rewrite_bool(condition, rule))
            points = points.intersect(plane.where("q >= 0 and k >= 0"))
            if points.is_empty():
                return None
            point = points.lexmin().sample_point()
            layer, step = (
                whole_number(point.get_coordinate_val(isl.dim_type.set, place))
                for place in range(2)
            )
            return layer, step
    except (NotAffine, TooHard) as error:
        raise Undecided from error


def shown(at: tuple[int, int], condition: BoolExpr) -> str:
    """`layer 2, step 0`: those of the two that the condition reads."""
    values = dict(zip(_AXES, at, strict=True))
    read = params_of(condition)
    return ", ".join(f"{name} {values[name]}" for name in values if name in read)
