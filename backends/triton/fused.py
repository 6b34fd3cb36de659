"""Which maps of a program's selections have kernels that never store them.

In: an attention. Out: the maps of scores that are summed while they are made, and by
what; the pooled rows of Q and K. Not its job: the kernels' text (`estimate`), calling
them (`planner`), maps of any other form (`backends.maps`, in PyTorch, rows at a time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from patternc.backends.probe import flat
from patternc.ir.nodes import (
    KEY,
    QUERY,
    All,
    Attention,
    Axis,
    Binary,
    BoolExpr,
    Const,
    Expr,
    Index,
    IntExpr,
    IntOp,
)
from patternc.ir.selection import (
    Logits,
    MapExpr,
    MapWhere,
    Reduce,
    Reduction,
    Rows,
    Softmax,
    maps_of,
    submaps,
)
from patternc.ir.walk import params_of, rewrite_bool, tables_of


class SummedBy(Enum):
    """The groups that a kernel serves."""

    COLUMN = "columns"
    DIAGONAL = "diagonals"  # q - k
    BACK_DIAGONAL = "back diagonals"  # k - q
    ANTIDIAGONAL = "antidiagonals"  # q + k
    BLOCK = "blocks"


@dataclass(frozen=True, slots=True)
class Probe:
    """A map of scores that is summed: where it is live, by `q` and `k`.

    `params` are the run-time parameters that the condition reads.
    """

    map_: MapExpr
    condition: BoolExpr
    is_softmax: bool
    params: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FusedSum:
    """A reduction of probe number `probe`; `sizes` are those of blocks, or () ."""

    probe: int
    by: SummedBy
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fused:
    """What kernels compute of an attention's maps."""

    probes: tuple[Probe, ...]
    sums: Mapping[Reduce, FusedSum]
    pools: Mapping[Reduce, int]  # the size of a block of rows

    def sums_of(self, probe: int) -> frozenset[SummedBy]:
        """What a probe is summed by."""
        return frozenset(one.by for one in self.sums.values() if one.probe == probe)


_JOINS = {Reduction.SUM, Reduction.MEAN, Reduction.MAX, Reduction.MIN}


def fused_of(attention: Attention) -> Fused:
    """The maps of an attention that have kernels."""
    probes: list[Probe] = []
    sums: dict[Reduce, FusedSum] = {}
    pools: dict[Reduce, int] = {}
    for selection in attention.selections:
        for whole in maps_of(selection):
            for node in submaps(whole):
                if not isinstance(node, Reduce) or node.how not in _JOINS:
                    continue
                size = _pool_size(node)
                if size is not None:
                    pools[node] = size
                    continue
                found, by = _probe_of(attention, node.operand), _summed_by(node.by)
                if found is None or by is None:
                    continue
                if found not in probes:
                    probes.append(found)
                sums[node] = FusedSum(probes.index(found), *by)
    return Fused(tuple(probes), sums, pools)


def _pool_size(node: Reduce) -> int | None:
    """The block of `mean(Q by q // size)` and its like."""
    if not isinstance(node.operand, Rows) or len(node.by) != 1:
        return None
    return _divisor(node.by[0], Axis.FIRST)


def _probe_of(attention: Attention, map_: MapExpr) -> Probe | None:
    """The scores, or their softmax, where a condition on q and k holds."""
    if attention.scores:
        return None
    is_softmax, inner = False, map_
    if isinstance(inner, Softmax):
        is_softmax, inner = True, inner.operand
    terms: list[BoolExpr] = []
    while isinstance(inner, MapWhere):
        terms += flat(inner.condition)
        inner = inner.operand
    if not isinstance(inner, Logits) or any(tables_of(term) for term in terms):
        return None
    condition = rewrite_bool(All(tuple(terms)), _on_tokens)
    return Probe(map_, condition, is_softmax, tuple(sorted(params_of(condition))))


def _on_tokens(node: Expr) -> Expr:
    """The keys of scores are the tokens themselves."""
    if isinstance(node, Index) and node.axis in (Axis.FIRST, Axis.SECOND):
        return QUERY if node.axis is Axis.FIRST else KEY
    return node


def _summed_by(by: tuple[IntExpr, ...]) -> tuple[SummedBy, tuple[int, ...]] | None:
    """The kind of groups, and the sizes of blocks."""
    if len(by) == 2:
        rows, keys = _divisor(by[0], Axis.FIRST), _divisor(by[1], Axis.SECOND)
        return None if rows is None or keys is None else (SummedBy.BLOCK, (rows, keys))
    if len(by) != 1:
        return None
    only = by[0]
    size = _divisor(only, Axis.SECOND)
    if size is not None:
        return SummedBy.COLUMN, (size,)
    match only:
        case Binary(op=op, lhs=Index(axis=left), rhs=Index(axis=right)):
            kind = _KINDS.get((op, left, right))
            return None if kind is None else (kind, ())
    return None


_KINDS = {
    (IntOp.SUB, Axis.FIRST, Axis.SECOND): SummedBy.DIAGONAL,
    (IntOp.SUB, Axis.SECOND, Axis.FIRST): SummedBy.BACK_DIAGONAL,
    (IntOp.ADD, Axis.FIRST, Axis.SECOND): SummedBy.ANTIDIAGONAL,
    (IntOp.ADD, Axis.SECOND, Axis.FIRST): SummedBy.ANTIDIAGONAL,
}


def _divisor(expr: IntExpr, axis: Axis) -> int | None:
    """`size` of `key // size`, 1 for the key itself."""
    match expr:
        case Index(axis=own) if own is axis:
            return 1
        case Binary(op=IntOp.FLOORDIV, lhs=Index(axis=own), rhs=Const(value=size)):
            return size if own is axis and size > 0 else None
    return None
