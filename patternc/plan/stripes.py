"""Masks that are made of chosen diagonals, columns and blocks.

In: a mask in normal form, a schedule. Out: `Stripes`, which say the same with smaller
masks: what is asked of the diagonal `q - k` alone, of the key alone, of a block of pairs
alone, and under what diagonals columns and blocks count; or the reason why there are
none. Not its job: tiles, which follow from them at a call (the backend that visits
them), masks that read no input (`plan.tiling`).

MInference 1.0 (H. Jiang et al., 2024) computes such masks, "vertical-slash", by whole
blocks of its diagonals; here a pair is visible if its own diagonal or column is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import gcd

from patternc.ir.nodes import (
    EMPTY_PATTERN,
    FULL_PATTERN,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Expr,
    IntOp,
    Not,
    Read,
    Truth,
)
from patternc.ir.walk import axes_of, children, subexpressions, substitute, tables_of
from patternc.plan.kernel import Blocks, Schedule, Stripes

MOST_TERMS = 32
"""More terms of the union than this are not looked through."""

_PAIR = frozenset({Axis.QUERY, Axis.KEY})

_OPPOSITE = {
    CompareOp.LT: CompareOp.GE,
    CompareOp.GE: CompareOp.LT,
    CompareOp.LE: CompareOp.GT,
    CompareOp.GT: CompareOp.LE,
    CompareOp.EQ: CompareOp.NE,
    CompareOp.NE: CompareOp.EQ,
}


class NoStripes(Exception):
    """A mask is not made of diagonals, columns and blocks; the text says why."""


@dataclass(frozen=True, slots=True)
class _Term:
    """One term of the union, by what its comparisons are asked of."""

    diagonal: tuple[BoolExpr, ...] = ()
    column: tuple[BoolExpr, ...] = ()
    block: tuple[BoolExpr, ...] = ()
    other: tuple[BoolExpr, ...] = ()  # of no token: the head, the length, a parameter


def find_stripes(mask: BoolExpr, schedule: Schedule) -> Stripes:
    """The stripes of a mask. Raises `NoStripes`.

    Some input must be read at `q - k`, at `k`, or at a block of both: what reads nothing
    there has few tiles in closed form, or the same ones for all its queries.
    """
    terms = [_sorted(atoms) for atoms in _terms(mask)]
    if not any(_chooses(atom) for term in terms for atom in _atoms(term)):
        raise NoStripes("no input is read at `q - k`, at `k` or at blocks of both")
    blocks = [term for term in terms if term.block]
    lines = [term for term in terms if not any(map(partial(_may_meet, term), blocks))]
    # What may meet a block must be one, so that no pair is visited twice.
    blocks = [
        replace(term, block=(*term.block, *term.column), column=())
        for term in terms
        if term not in lines
    ]
    columns = [term for term in lines if term.column]
    diagonals = [term for term in lines if not term.column]
    return Stripes(
        _any([_all((*term.diagonal, *term.other)) for term in diagonals]),
        _any([_all((*term.column, *term.other)) for term in columns]),
        _within(columns) if columns else EMPTY_PATTERN,
        _blocks(blocks, schedule) if blocks else None,
    )


def _atoms(term: _Term) -> tuple[BoolExpr, ...]:
    return (*term.diagonal, *term.column, *term.block, *term.other)


def _terms(mask: BoolExpr) -> list[tuple[BoolExpr, ...]]:
    """A mask as a union of conjunctions of comparisons."""
    match mask:
        case Truth():
            return [()] if mask.value else []
        case Any():
            found = [part for term in mask.terms for part in _terms(term)]
        case All():
            inner = [_terms(term) for term in mask.terms]
            count = 1
            for choices in inner:
                count *= len(choices)
            if count > MOST_TERMS:
                raise NoStripes(f"its union has more than {MOST_TERMS} terms")
            found = [
                tuple(a for part in some for a in part) for some in product(*inner)
            ]
        case _:
            found = [(mask,)]
    if len(found) > MOST_TERMS:
        raise NoStripes(f"its union has more than {MOST_TERMS} terms")
    return found


def _sorted(atoms: tuple[BoolExpr, ...]) -> _Term:
    diagonal, column, block, other = [], [], [], []
    for atom in atoms:
        axes = axes_of(atom) & _PAIR
        if not axes:
            other.append(atom)
        elif axes == {Axis.KEY}:
            column.append(atom)
        elif axes == _PAIR and follows_diagonals(atom):
            diagonal.append(atom)
        else:
            block.append(atom)
    return _Term(tuple(diagonal), tuple(column), tuple(block), tuple(other))


def _chooses(atom: BoolExpr) -> bool:
    """Whether an input is read along a diagonal, at a key or at a pair."""
    for node in subexpressions(atom):
        if isinstance(node, Read):
            axes = frozenset[Axis]().union(*map(axes_of, node.indices)) & _PAIR
            if axes in (_PAIR, {Axis.KEY}):
                return True
    return False


def _may_meet(lhs: _Term, rhs: _Term) -> bool:
    """False if one term asks of a head as a whole what the other excludes."""
    return not any(
        isinstance(atom, Compare) and replace(atom, op=_OPPOSITE[atom.op]) in rhs.other
        for atom in lhs.other
    )


def _within(terms: list[_Term]) -> BoolExpr:
    """The diagonals under which all these terms count."""
    if len({frozenset(term.diagonal) for term in terms}) > 1:
        raise NoStripes("its columns, or its blocks, count under different masks")
    if any(tables_of(atom) for atom in terms[0].diagonal):
        raise NoStripes("its columns, or its blocks, count under a mask of data")
    return _all(terms[0].diagonal)


def _blocks(terms: list[_Term], schedule: Schedule) -> Blocks:
    sizes = {Axis.QUERY: 0, Axis.KEY: 0}
    for term in terms:
        for atom in term.block:
            _join_sizes(atom, sizes)
    block_q, block_k = sizes[Axis.QUERY], sizes[Axis.KEY]
    is_whole = block_q % schedule.block_q == 0 and block_k % schedule.block_k == 0
    if not (block_q and block_k and is_whole):
        raise NoStripes("its blocks are not whole tiles")
    mask = _any([_all((*term.block, *term.other)) for term in terms])
    return Blocks(mask, _within(terms), block_q, block_k)


def _join_sizes(expr: Expr, sizes: dict[Axis, int]) -> None:
    """The greatest blocks on which an expression is the same everywhere."""
    match expr:
        case Binary(op=IntOp.FLOORDIV, lhs=inner, rhs=Const(value=size)) if (
            not children(inner) and axes_of(inner) & _PAIR and size > 0
        ):
            (axis,) = axes_of(inner)
            sizes[axis] = gcd(sizes[axis], size)
        case _ if not children(expr):
            if axes_of(expr) & _PAIR:
                raise NoStripes("a term asks for more than a diagonal, key or block")
        case _:
            for child in children(expr):
                _join_sizes(child, sizes)


def follows_diagonals(expr: Expr) -> bool:
    """Whether the value depends on `q` and `k` through `q - k` alone, as is written."""
    match expr:
        case Not():
            return follows_diagonals(expr.term)
        case Compare():
            lhs, rhs = _slopes(expr.lhs), _slopes(expr.rhs)
            return lhs is not None and rhs is not None and sum(lhs) == sum(rhs)
        case _:
            found = _slopes(expr)
            return found is not None and sum(found) == 0


def _slopes(expr: Expr) -> tuple[int, int] | None:
    """`a` and `b` of `a * q + b * k + f(q - k)`; None if that is not the form."""
    match expr:
        case Binary(op=IntOp.ADD | IntOp.SUB as op):
            lhs, rhs = _slopes(expr.lhs), _slopes(expr.rhs)
            if lhs is None or rhs is None:
                return None
            sign = 1 if op is IntOp.ADD else -1
            return lhs[0] + sign * rhs[0], lhs[1] + sign * rhs[1]
        case (
            Binary(op=IntOp.MUL, lhs=Const(value=factor), rhs=inner)
            | Binary(op=IntOp.MUL, lhs=inner, rhs=Const(value=factor))
        ):
            found = _slopes(inner)
            return found and (factor * found[0], factor * found[1])
    axes = axes_of(expr) & _PAIR
    if not axes:
        return 0, 0
    if not children(expr):
        return int(Axis.QUERY in axes), int(Axis.KEY in axes)
    inner_follow = all(follows_diagonals(child) for child in children(expr))
    return (0, 0) if inner_follow else None


def on_diagonal(mask: BoolExpr) -> BoolExpr:
    """What a mask that follows diagonals says of `d = q - k`, which is called `q`."""
    return substitute(mask, {Axis.KEY: Const(0)})


def _all(atoms: tuple[BoolExpr, ...]) -> BoolExpr:
    if not atoms:
        return FULL_PATTERN
    return atoms[0] if len(atoms) == 1 else All(atoms)


def _any(terms: list[BoolExpr]) -> BoolExpr:
    if not terms:
        return EMPTY_PATTERN
    return terms[0] if len(terms) == 1 else Any(tuple(terms))
