"""The work of choosing keys, as a package says it.

In: an attention that may be dense where that is cheaper. Out: `ChoosingFacts`, from which
`patternc.runtime.cheaper` decides as `plan.cheaper` does. Not its job: what is counted
(`plan.choosing_work`).
"""

from __future__ import annotations

from collections.abc import Mapping

from patternc.backends.triton.expr import folded
from patternc.backends.triton.formulas import Token, formula
from patternc.backends.triton.plan_facts import ENDS
from patternc.backends.triton.plan_steps import Unplanned, ends_of
from patternc.ir.nodes import (
    All,
    Any,
    Attention,
    Binary,
    BoolExpr,
    Compare,
    Const,
    HeadCase,
    IntExpr,
    IntOp,
    Not,
    Read,
    Truth,
)
from patternc.ir.selected import maps_of, submaps
from patternc.ir.selection import (
    Choice,
    Logits,
    MapExpr,
    MapWhere,
    Product,
    Selection,
    keys_of,
)
from patternc.ir.walk import tables_of
from patternc.plan.choosing_work import first_row, is_of_keys, kind_of, number_of
from patternc.plan.measured import CHOOSING
from patternc.runtime.choosing import (
    Amount,
    ChoosingFacts,
    ChosenTable,
    Live,
    MaskCase,
    Scored,
)
from patternc.runtime.formula import Formula
from patternc.runtime.prices import Choosing
from patternc.source import Span


def choosing_facts(attention: Attention) -> ChoosingFacts:
    """What the decision is made from. Raises `Unplanned`."""
    own = sorted(attention.selections, key=lambda one: one.table)
    drawn = {one.table: f"drawn_{at}" for at, one in enumerate(own)}
    times = CHOOSING[0]
    return ChoosingFacts(
        Choosing(*(getattr(times, name) for name in Choosing.__slots__)),
        tuple(map(_table, own)),
        tuple(_scored(attention)),
        tuple(_case(case, kind_of(case.mask), drawn) for case in attention.cases),
        tuple(_case(case, "tiles", {}) for case in attention.dense_cases),
    )


def _table(one: Selection) -> ChosenTable:
    if one.reach > 1:
        raise Unplanned(one.span)
    is_top = one.choice is Choice.TOP
    return ChosenTable(
        tuple(_size(key, one.span) for key in one.keys),
        tuple(at for at in range(len(one.keys)) if at not in one.per),
        _amount(one.amount if is_top else None),
        _amount(one.least),
        _amount(one.most),
    )


def _amount(amount: MapExpr | None) -> Amount:
    found = None if amount is None else number_of(amount)
    return (
        found if found is None or isinstance(found, float) else formula(folded(found))
    )


def _size(key: IntExpr, span: Span) -> Formula:
    """How many values a key has."""
    low, high = ends_of(key, span)
    size = Binary(IntOp.ADD, Binary(IntOp.SUB, high, low), Const(1))
    return formula(size, ENDS)


def _scored(attention: Attention) -> list[Scored]:
    """The maps whose entries are computed, in the order in which they are counted."""
    numbers: dict[MapExpr, int] = {}
    found: list[Scored] = []
    for one in attention.selections:
        for whole in maps_of(one):
            lives: list[Live] = []
            for node in submaps(whole):
                if isinstance(node, MapWhere) and keys_of(node):
                    lives.append(_live(node.condition))
                if isinstance(node, Logits):
                    number = numbers.setdefault(node, len(numbers))
                    found.append(Scored(number, (), tuple(lives)))
                if isinstance(node, Product) and node not in numbers:
                    numbers[node] = len(numbers)
                    sizes = tuple(_size(key, one.span) for key in keys_of(node))
                    found.append(Scored(numbers[node], sizes, ()))
    return found


def _live(condition: BoolExpr) -> Live:
    first = first_row(condition)
    sampled = _sampled(condition, {}) if is_of_keys(condition) else None
    return Live(
        None if first is None else formula(folded(first)),
        None if sampled is None else Formula(tuple(sampled)),
    )


def _case(case: HeadCase, kind: str, drawn: Mapping[str, str]) -> MaskCase:
    tokens = _sampled(case.mask, drawn)
    return MaskCase(kind, len(case.heads), case.heads[0], Formula(tuple(tokens)))


def _sampled(mask: BoolExpr, drawn: Mapping[str, str]) -> list[Token]:
    """A mask: what it reads of tables is drawn, of inputs it is true."""
    match mask:
        case All() | Any():
            is_all = isinstance(mask, All)
            found: list[Token] = [int(is_all)]
            for term in mask.terms:
                found += [*_sampled(term, drawn), "and" if is_all else "or"]
            return found
        case Not():
            return [*_sampled(mask.term, drawn), "not"]
        case Compare(lhs=Read(table=table)) if table in drawn:
            return [drawn[table]]
        case Compare() | Truth():
            return [1] if tables_of(mask) else [*formula(folded(mask)).tokens]
