"""Masks that are made of chosen diagonals and chosen columns.

In: a mask in normal form. Out: `Stripes`, which say the same with three smaller masks:
what is asked of the diagonal `q - k` alone, of the key alone, and under what diagonals a
chosen column counts; or the reason why there are none. Not its job: tiles, which follow
from them at a call (the backend that visits them), masks that read no input
(`plan.tiling`).

MInference 1.0 (H. Jiang et al., 2024) computes such masks, "vertical-slash", by whole
blocks of its diagonals; here a pair is visible if its own diagonal or column is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from patternc.ir.nodes import (
    EMPTY_PATTERN,
    FULL_PATTERN,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    Const,
    Expr,
    IntOp,
    Not,
    Read,
    Truth,
)
from patternc.ir.walk import axes_of, children, subexpressions, substitute, tables_of
from patternc.plan.kernel import Stripes

MOST_TERMS = 32
"""More terms of the union than this are not looked through."""

_PAIR = frozenset({Axis.QUERY, Axis.KEY})


class NoStripes(Exception):
    """A mask is not made of diagonals and columns; the text says why."""


@dataclass(frozen=True, slots=True)
class _Term:
    """One term of the union, by what its comparisons are asked of."""

    diagonal: tuple[BoolExpr, ...] = ()
    column: tuple[BoolExpr, ...] = ()
    other: tuple[BoolExpr, ...] = ()  # of neither: the head, the length, a parameter


def find_stripes(mask: BoolExpr) -> Stripes:
    """The stripes of a mask. Raises `NoStripes`.

    Some input must be read at `q - k` or at `k`: what reads nothing there has few
    tiles in closed form, or the same ones for all its queries.
    """
    terms = [_sorted(parts) for parts in _terms(mask)]
    columns = [term for term in terms if term.column]
    diagonals = [term for term in terms if not term.column]
    if not any(_chooses(atom) for term in terms for atom in _atoms(term)):
        raise NoStripes("no input is read at `q - k` or at `k` alone")
    around = {frozenset(term.diagonal) for term in columns}
    if len(around) > 1:
        raise NoStripes("its columns count under different masks")
    within = columns[0].diagonal if columns else (EMPTY_PATTERN,)
    if any(tables_of(atom) for atom in within):
        raise NoStripes("its columns count under a mask that reads an input")
    return Stripes(
        _any([_all((*term.diagonal, *term.other)) for term in diagonals]),
        _any([_all((*term.column, *term.other)) for term in columns]),
        _all(within),
    )


def _atoms(term: _Term) -> tuple[BoolExpr, ...]:
    return (*term.diagonal, *term.column, *term.other)


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
    diagonal, column, other = [], [], []
    for atom in atoms:
        axes = axes_of(atom) & _PAIR
        if not axes:
            other.append(atom)
        elif axes == {Axis.KEY}:
            column.append(atom)
        elif axes == _PAIR and follows_diagonals(atom):
            diagonal.append(atom)
        else:
            raise NoStripes("a term asks for more than `q - k` or `k` alone")
    return _Term(tuple(diagonal), tuple(column), tuple(other))


def _chooses(atom: BoolExpr) -> bool:
    """Whether an input is read along a diagonal or at a key."""
    for node in subexpressions(atom):
        if isinstance(node, Read):
            axes = frozenset[Axis]().union(*map(axes_of, node.indices)) & _PAIR
            if axes in (_PAIR, {Axis.KEY}):
                return True
    return False


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
