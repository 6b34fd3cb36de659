"""Inputs, chosen stripes and plans, as a package says them.

In: a planned kernel. Out: dataclasses of the manifest (`patternc.runtime.data`). Not its
job: the text of a module that does the same (`plan_text`, `stripes`, `gradients`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import assert_never

from patternc.backends.declared import declarations
from patternc.backends.triton.expr import folded
from patternc.backends.triton.features import Features, reads_axis
from patternc.backends.triton.formulas import formula
from patternc.backends.triton.fused import Probe, fused_of
from patternc.backends.triton.plan_steps import (
    LAST,
    Q_OFFSET,
    Arithmetic,
    Blocks,
    EachRow,
    Joined,
    SelectionSteps,
    Shares,
    Side,
    Step,
    Sums,
    Where,
    least_rows,
    planning_of,
)
from patternc.backends.triton.slopes import (
    column_reads,
    column_slots,
    row_reads,
    row_slots,
)
from patternc.backends.triton.stripes import Striped
from patternc.backends.triton.targets import SHARED_BYTES
from patternc.ir.nodes import (
    Attention,
    Axis,
    Binary,
    BoolExpr,
    Const,
    Expr,
    FloatRead,
    IntExpr,
    IntOp,
)
from patternc.ir.selection import Choice, Crossing, MapFunction, Sharing
from patternc.plan.stripes import on_diagonal
from patternc.runtime.data import (
    InputAxis,
    InputFacts,
    PlanFacts,
    PlanProbe,
    PlanSelection,
    PlanStep,
    ScoreRead,
    ScoreReads,
    StripeFacts,
)
from patternc.runtime.formula import Formula

_NOTHING = Formula(())
_FALSE = Formula((0,))
ENDS: dict[Expr, str] = {Q_OFFSET: Q_OFFSET.name, LAST: LAST.name}
"""What the ends of keys are called in formulas."""


def input_facts(attention: Attention) -> tuple[InputFacts, ...]:
    """Every input, in the order of declaration."""
    made = {selection.table for selection in attention.selections}
    return tuple(
        InputFacts(
            name,
            element,
            tuple(InputAxis(*x) for x in axes),
            is_sorted,
            name not in made,
        )
        for name, (element, axes, is_sorted) in declarations(attention).items()
    )


def stripe_facts(own: Striped | None) -> StripeFacts | None:
    """What is chosen of the diagonals, columns or blocks of a kernel."""
    if own is None:
        return None
    blocks = own.blocks
    return StripeFacts(
        own.has_diagonals,
        own.has_columns,
        formula(folded(on_diagonal(own.within))) if own.has_columns else _FALSE,
        () if blocks is None else (blocks.block_q, blocks.block_k),
        _FALSE if blocks is None else formula(folded(on_diagonal(blocks.within))),
    )


def score_reads(features: Features) -> ScoreReads | None:
    """The elements of inputs whose gradients have kernels."""
    reads: list[ScoreRead] = []
    for case in features.scores:
        for of_rows, own in ((True, row_reads(case)), (False, column_reads(case))):
            for slot, read in enumerate(own):
                reads.append(_score_read(read, of_rows, slot, case.heads))
    if not reads:
        return None
    return ScoreReads(row_slots(features), column_slots(features), tuple(reads))


def _score_read(
    read: FloatRead, of_rows: bool, slot: int, heads: Collection[int]
) -> ScoreRead:
    places = tuple(formula(folded(index)) for index in read.indices)
    moves = reads_axis(read, Axis.QUERY if of_rows else Axis.KEY)
    return ScoreRead(read.table, of_rows, slot, tuple(heads), places, moves)


def plan_facts(attention: Attention, targets: Collection[str]) -> PlanFacts | None:
    """How the keys of a call are chosen. Raises `Unplanned`."""
    if not attention.selections:
        return None
    planning = planning_of(attention, fused_of(attention))
    group = attention.group_size
    heads = {Sharing.ALONE: 1, Sharing.ALL: attention.heads, Sharing.GROUP: group}
    return PlanFacts(
        planning.params,
        tuple(map(_probe, planning.probes)),
        tuple(_selection(own, heads) for own in planning.selections),
        {target: SHARED_BYTES[target] for target in targets},
    )


def _probe(probe: Probe) -> PlanProbe:
    first, end = _strided(Q_OFFSET, probe.stride), _strided(LAST, probe.stride)
    for least in least_rows(probe):
        first = Binary(IntOp.MAX, first, least)
    return PlanProbe(
        formula(first, ENDS),
        formula(Binary(IntOp.ADD, end, Const(1)), ENDS),
        probe.params,
        probe.is_softmax,
        probe.stride,
        probe.residue,
        probe.times,
    )


def _strided(position: IntExpr, stride: int) -> IntExpr:
    return position if stride == 1 else Binary(IntOp.FLOORDIV, position, Const(stride))


def _selection(own: SelectionSteps, heads: dict[Sharing, int]) -> PlanSelection:
    selection = own.selection
    return PlanSelection(
        selection.table,
        own.firsts,
        tuple(formula(end, ENDS) for pair in own.ends for end in pair),
        tuple(formula(move, ENDS) for move in own.moves),
        own.by_rows,
        tuple(_step(step, heads) for step in own.steps),
        _condition(selection.always),
        _choice(own),
        _amount(own.amount),
        0.0 if own.share is None else own.share,
        selection.crossing is Crossing.KEEP,
        _amount(own.least),
        _amount(own.most),
    )


def _choice(own: SelectionSteps) -> str:
    choice = own.selection.choice
    match choice:
        case Choice.TOP | Choice.TOP_P:
            return str(choice.value)
        case Choice.ABOVE:
            return str(own.selection.compare.value)
        case _:
            assert_never(choice)


def _amount(value: IntExpr | None) -> Formula | None:
    return None if value is None else formula(folded(value))


def _condition(value: BoolExpr | None) -> Formula | None:
    return None if value is None else formula(folded(value))


def _step(step: Step, heads: dict[Sharing, int]) -> PlanStep:
    match step:
        case Sums():
            how, by = step.how.value, step.by.value
            own = (step.probe, how, by, step.sizes, heads[step.over])
            return PlanStep("sums", *own, 0, _NOTHING, ())
        case Blocks():
            if isinstance(step.queries, EachRow):
                by, size = step.keys.how.value, (step.keys.size,)
                words = tuple(map(_word, step.queries.functions))
                return PlanStep("rows", 0, "", by, size, 1, 0, _NOTHING, words)
            hows = (step.queries.how.value, step.keys.how.value)
            sizes = (step.queries.size, step.keys.size)
            return PlanStep("blocks", 0, *hows, sizes, 1, 0, _NOTHING, ())
        case Where():
            condition = formula(folded(step.condition))
            return PlanStep("where", 0, "", "", (), 1, step.operand, condition, ())
        case Shares():
            return PlanStep("softmax", 0, "", "", (), 1, step.operand, _NOTHING, ())
        case Joined():
            over, operand = heads[step.over], step.operand
            return PlanStep("joined", 0, "", "", (), over, operand, _NOTHING, ())
        case Arithmetic():
            sides = tuple(_sides(step))
            return PlanStep(step.sign, 0, "", "", (), 1, 0, _NOTHING, sides)
        case _:
            assert_never(step)


def _word(function: MapFunction) -> str:
    return "neg" if function is MapFunction.NEGATE else function.value


def _sides(step: Arithmetic) -> Iterator[int | float | str]:
    sides: tuple[Side, Side] = (step.lhs, step.rhs)
    for side in sides:
        yield "scale" if side is None else side
