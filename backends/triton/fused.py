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
    Compare,
    CompareOp,
    Const,
    Expr,
    Index,
    IntExpr,
    IntOp,
)
from patternc.ir.selected import map_children, maps_of, submaps
from patternc.ir.selection import (
    Choice,
    Logits,
    MapBinary,
    MapExpr,
    MapNumber,
    MapOp,
    MapScale,
    MapWhere,
    Reduce,
    Reduction,
    Rows,
    Selection,
    Sharing,
    Softmax,
    Tokens,
    keys_of,
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

    `params` are the run-time parameters that the condition reads. With a `stride`,
    rows and keys of the map are of so many tokens, and a score is `times` the sum of
    those of their pairs for which (q + k) % stride is `residue`.
    """

    map_: MapExpr
    condition: BoolExpr
    is_softmax: bool
    params: tuple[str, ...]
    stride: int = 1
    residue: int = 0
    times: float = 1.0


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


def planning_lines(attention: Attention) -> tuple[str, ...]:
    """For each selection, what its map and its choice are computed by on a GPU."""
    fused = fused_of(attention)
    return tuple(
        f"{selection.table}: {', '.join(_means(selection, fused))}"
        for selection in attention.selections
    )


def _means(selection: Selection, fused: Fused) -> list[str]:
    """How a selection comes about, in words."""
    found: list[str] = []
    rest = False
    pending = list(maps_of(selection))
    while pending:
        node = pending.pop(0)
        if isinstance(node, Reduce) and node in fused.sums:
            by = fused.sums[node].by.value
            found.append(f"scores summed by {by} while they are made")
        elif isinstance(node, Reduce) and node in fused.pools:
            found.append(f"rows of {_pooled_tokens(node).value} pooled")
        else:
            rest |= not isinstance(node, MapNumber | MapScale) and bool(keys_of(node))
            pending += map_children(node)
    is_compared = selection.choice is Choice.ABOVE and (
        selection.least is None and selection.most is None
    )
    found += ["the rest of the map by PyTorch, rows at a time"] if rest else []
    choice = "compared" if is_compared else "chosen by a search for the threshold"
    return [*dict.fromkeys(found), choice]


def _pooled_tokens(node: Reduce) -> Tokens:
    assert isinstance(node.operand, Rows)
    return node.operand.tokens


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
                if found is None or by is None or not _is_served(found, node.how, *by):
                    continue
                if found not in probes:
                    probes.append(found)
                sums[node] = FusedSum(probes.index(found), *by)
    return Fused(tuple(probes), sums, pools)


PART_TILE = 128
"""Keys that a program adds up at a time; those of other blocks are left to PyTorch."""


def _is_served(
    probe: Probe, how: Reduction, by: SummedBy, sizes: tuple[int, ...]
) -> bool:
    """Whether there is a kernel for such a sum of such a map."""
    if by is not SummedBy.BLOCK:
        return probe.stride == 1
    if probe.is_softmax and how not in (Reduction.SUM, Reduction.MEAN):
        return False
    keys = sizes[1]
    is_power = keys & (keys - 1) == 0
    return keys >= 8 and (is_power or keys % PART_TILE == 0) and probe.times > 0


def _pool_size(node: Reduce) -> int | None:
    """The block of `mean(Q by q // size)` and its like."""
    if not isinstance(node.operand, Rows) or len(node.by) != 1:
        return None
    return _divisor(node.by[0], Axis.FIRST)


def _probe_of(attention: Attention, map_: MapExpr) -> Probe | None:
    """The scores, or their softmax, where a condition on q and k holds."""
    if attention.scores:
        return None
    is_softmax = isinstance(map_, Softmax)
    inner = map_.operand if isinstance(map_, Softmax) else map_
    terms: list[BoolExpr] = []
    times = 1.0
    while isinstance(inner, MapWhere | MapBinary):
        if isinstance(inner, MapWhere):
            terms += flat(inner.condition)
            inner = inner.operand
        else:
            number, inner = _number_of(inner)
            times *= number
    stride = (1, 0) if isinstance(inner, Logits) else _stride_of(inner)
    if stride is None or times == 0 or any(tables_of(term) for term in terms):
        return None
    condition = rewrite_bool(All(tuple(terms)), _on_tokens)
    params = tuple(sorted(params_of(condition)))
    return Probe(map_, condition, is_softmax, params, *stride, times)


def _number_of(map_: MapBinary) -> tuple[float, MapExpr]:
    """x and M of `M * x`, `x * M` or `M / x`; 0 where it is something else."""
    match map_:
        case MapBinary(op=MapOp.MUL, lhs=inner, rhs=MapNumber(value=value)):
            return value, inner
        case MapBinary(op=MapOp.MUL, lhs=MapNumber(value=value), rhs=inner):
            return value, inner
        case MapBinary(op=MapOp.DIV, lhs=inner, rhs=MapNumber(value=value)):
            return (1 / value if value else 0.0), inner
    return 0.0, map_.lhs


def _stride_of(map_: MapExpr) -> tuple[int, int] | None:
    """`sum(scores where (q + k) % stride == residue by q // stride, k // stride)`."""
    match map_:
        case Reduce(
            how=Reduction.SUM,
            operand=MapWhere(
                operand=Logits(),
                condition=Compare(
                    op=CompareOp.EQ,
                    lhs=Binary(op=IntOp.MOD, lhs=pair, rhs=Const(value=stride)),
                    rhs=Const(value=residue),
                ),
            ),
            by=(row, key),
            over=Sharing.ALONE,
        ):
            sizes = (_divisor(row, Axis.FIRST), _divisor(key, Axis.SECOND))
            is_right = sizes == (stride, stride) and 0 <= residue < stride
            is_sum = _summed_by((pair,)) == (SummedBy.ANTIDIAGONAL, ())
            return (stride, residue) if is_right and is_sum else None
    return None


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
