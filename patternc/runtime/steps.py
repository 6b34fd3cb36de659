"""How many key tiles a query tile visits, from formulas.

In: the head groups of a manifest. Out: a function of a call's numbers; it decides how
many programs share a query tile. Not its job: the tiles themselves, which the kernels
know.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from .choosing import ChoosingFacts
from .data import Judge, PlanFacts, PlanSelection
from .formula import READ, Formula
from .kinds import FLOAT, INT, check_float
from .manifest import Facts
from .tiles import HeadGroup

UNARY: Mapping[str, Callable[[int], int]] = {
    "abs": abs,
    "not": operator.not_,
}

BINARY: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "min": min,
    "max": max,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
}

OPERATIONS = frozenset(UNARY) | frozenset(BINARY)

_MOST_BITS = 128


def evaluate(
    formula: Formula, names: Mapping[str, int], has_inputs: bool = False
) -> int:
    """Its value; with `has_inputs`, on trial, elements of these are 0. Raises `ValueError` for what is no formula or leaves 128 bits."""
    stack: list[int] = []
    try:
        for token in formula.tokens:
            if isinstance(token, int):
                stack.append(token)
            elif token in BINARY:
                right = stack.pop()
                stack[-1] = int(BINARY[token](stack[-1], right))
            elif token in UNARY:
                stack[-1] = int(UNARY[token](stack[-1]))
            elif has_inputs and (found := READ.fullmatch(token)) is not None:
                _popped(stack, int(found[1]))
                stack.append(0)
            else:
                stack.append(names[token])
            if stack[-1].bit_length() > _MOST_BITS:
                raise ValueError("a formula leaves 128 bits")
        (value,) = stack
    except (IndexError, KeyError, ZeroDivisionError, ValueError) as error:
        raise ValueError(f"not a formula of tiles: {error}") from None
    return value


def _popped(stack: list[int], count: int) -> None:
    """Raises `IndexError` where there are fewer."""
    for _ in range(count):
        stack.pop()


def check_formulas(facts: Facts) -> None:
    """Try every formula once. Raises `ValueError`."""
    most_steps(facts, 1, 1, dict.fromkeys(facts.params, 1))
    names = {f"p_{x}": 1 for x in facts.params} | {"h": 0, "n_k": 1}
    if facts.stripes is not None:
        for within in (facts.stripes.within, facts.stripes.blocks_within):
            evaluate(within, {**names, "q": 0})
    for read in () if facts.reads is None else facts.reads.reads:
        for place in read.places:
            evaluate(place, {**names, "q" if read.of_rows else "k": 0}, True)
    for pair in facts.pairs:
        for at in pair.places:
            if at is not None:
                evaluate(at, {**names, "q": 0, "k": 0}, True)
    for cover in facts.listed:
        _check_judge(cover.judge, names)
    _check_rows(facts)
    if facts.plan is not None:
        _check_plan(facts.plan)


def check_choosing(choosing: ChoosingFacts, facts: Facts) -> None:
    """Try every formula of a decision once. Raises `ValueError`."""
    plan = {} if facts.plan is None else facts.plan.params
    names = {f"p_{x}": 1 for x in (*facts.params, *plan)} | {"h": 0, "n_k": 1}
    ends = {"q_offset": 0, "last": 0, "n_k": 1}
    for table in choosing.tables:
        for size in table.sizes:
            evaluate(size, ends)
        for amount in (table.amount, table.least, table.most):
            if isinstance(amount, Formula):
                evaluate(amount, names)
    for one in choosing.scored:
        for size in one.sizes:
            evaluate(size, ends)
        for live in one.lives:
            for value in (live.first, live.condition):
                keys = {} if value is live.first else {"e_0": 0, "e_1": 0}
                if value is not None:
                    evaluate(value, {**names, **keys})
    drawn = {f"drawn_{at}": 0 for at in range(len(choosing.tables))}
    for cases, chosen in ((choosing.cases, drawn), (choosing.dense, {})):
        for case in cases:
            evaluate(case.mask, {**names, **chosen, "q": 0, "k": 0})


def _check_rows(facts: Facts) -> None:
    inputs = {item.name: item for item in facts.inputs}
    names = {"q": INT, "h": INT, "n_k": INT}
    names |= {f"p_{name}": INT for name in facts.params}
    for sink in facts.sinks:
        check_float(sink.value, names, inputs)
    for case in facts.outputs:
        check_float(case.value, {**names, "o": FLOAT, "own": FLOAT}, inputs)


def _check_judge(judge: Judge, names: Mapping[str, int]) -> None:
    for part in judge.parts:
        side = "q" if part.of_queries else "k"
        evaluate(part.value, {**names, side: 0}, True)
    for table in judge.tables:
        for place in table.places:
            if place is not None:
                evaluate(place, names, True)
    for cell in judge.cells:
        for side, place in zip(cell.sides, cell.places, strict=True):
            evaluate(place, {**names, **({side: 0} if side else {})}, True)
    parts = {f"part_{at}": 1 for at in range(len(judge.parts))}
    parts |= {f"cell_{at}": 1 for at in range(len(judge.cells))}
    tables = {f"table_{at}" for at in range(len(judge.tables))}
    for token in judge.seen.tokens:
        found = READ.fullmatch(token) if isinstance(token, str) else None
        if found is not None and found[2] not in tables:
            raise ValueError("a judge reads a table that it has not")
    evaluate(judge.seen, {**names, **parts, "true": 1, "false": 0}, True)


def _check_plan(plan: PlanFacts) -> None:
    names = {f"p_{x}": 1 for x in plan.params} | {"n_k": 1}
    for probe in plan.probes:
        for row in (probe.first, probe.end):
            evaluate(row, {**names, "q_offset": 0, "last": 0})
    for selection in plan.selections:
        for end in (*selection.ends, *selection.moves):
            evaluate(end, {"n_k": 1, "q_offset": 0, "last": 0})
        for amount in (selection.amount, selection.least, selection.most):
            if amount is not None:
                evaluate(amount, names)
        _check_conditions(selection, names)


def _check_conditions(selection: PlanSelection, names: Mapping[str, int]) -> None:
    known = {**names, **{f"e_{at}": 0 for at in range(len(selection.firsts))}}
    found = [step.condition for step in selection.steps if step.kind == "where"]
    for condition in (*found, *([selection.always] if selection.always else [])):
        evaluate(condition, known)


def most_steps(facts: Facts, qt: int, n_k: int, values: Mapping[str, int]) -> int:
    """The most key tiles that the first head of a group visits for a query tile.

    `qt` is the query tile, `n_k` the number of keys, `values` the run-time parameters.
    All tiles where they are listed, as in a generated module.
    """
    tiles = -(-n_k // facts.block_k)
    names = {"qt": qt, "n_k": n_k, **{f"p_{x}": value for x, value in values.items()}}
    return max((_visited(group, tiles, names) for group in facts.groups), default=0)


def _visited(group: HeadGroup, tiles: int, names: dict[str, int]) -> int:
    if group.ranges is None:
        return tiles
    names["h"] = group.first_head
    steps = 0
    for part in group.ranges:
        if evaluate(part.guard, names):
            lo, hi = evaluate(part.lo, names), evaluate(part.hi, names)
            steps += len(range(lo, min(hi, tiles), part.step))
    return steps
