"""What a program asks of a kernel beside masks on plain tiles.

In: a planned kernel. Out: `Features`: the inputs that it reads, its scores, weights,
sinks and outputs by the names of their conditions, its orders. Not its job: text
(`tables`, `weigh`, `emit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from patternc.ir.floats import discrete_parts, float_reads, float_subexpressions
from patternc.ir.nodes import (
    Axis,
    Expr,
    FloatExpr,
    FloatRead,
    Given,
    GivenValue,
    Input,
    LabelOrder,
    OutputCase,
    Read,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
)
from patternc.ir.walk import axes_of, subexpressions, tables_of
from patternc.plan.kernel import Kernel, TileCover

AnyRead = Read | FloatRead


@dataclass(frozen=True, slots=True)
class Features:
    """The parts of a kernel that change its text.

    `tables` are the inputs that the kernel itself reads, in the order of declaration;
    labels of an order are not among them. `sinks` are those of heads whose weights have
    a sum: others have nothing to join. `has_stripes`: the kernel visits chosen diagonals
    and columns (`stripes`).
    """

    tables: tuple[Input, ...]
    inputs: tuple[Input, ...]
    scores: tuple[ScoreCase, ...]
    unnormalised: tuple[WeightCase, ...]
    sinks: tuple[SinkCase, ...]
    outputs: tuple[OutputCase, ...]
    skipped: tuple[int, ...]
    is_ordered: bool
    lists_data: bool
    has_stripes: bool = False

    @property
    def natural(self) -> bool:
        """Whether logits are scaled before anything else, into natural units."""
        return bool(self.scores or self.unnormalised)

    @property
    def has_epilogue(self) -> bool:
        """Whether something is done with rows that are whole."""
        return bool(self.sinks or self.outputs)

    @property
    def reads_own_value(self) -> bool:
        """Whether an output reads `v`."""
        own = GivenValue(Given.VALUE)
        return any(own in float_subexpressions(case.output) for case in self.outputs)

    @property
    def is_plain(self) -> bool:
        """Whether the program has nothing but masks of arithmetic."""
        return not (
            self.inputs
            or self.natural
            or self.sinks
            or self.outputs
            or self.skipped
            or self.is_ordered
        )

    @property
    def runs_without_keys(self) -> bool:
        """Whether rows without keys need the kernel: they are not just 0 and -inf."""
        return bool(self.sinks or self.outputs or self.unnormalised)

    @property
    def floats(self) -> list[FloatExpr]:
        """Every floating expression of the kernel."""
        return [
            *(case.score for case in self.scores),
            *(case.logit for case in self.sinks),
            *(case.output for case in self.outputs),
        ]


def features_of(kernel: Kernel) -> Features:
    """Look at a kernel."""
    attention = kernel.attention
    unnormalised = tuple(
        case for case in attention.weights if case.kind is not WeightKind.SOFTMAX
    )
    no_sum = {head for case in unnormalised for head in case.heads}
    sinks = tuple(
        replace(case, heads=heads)
        for case in attention.sinks
        if (heads := tuple(head for head in case.heads if head not in no_sum))
    )
    floats = [
        *(case.score for case in attention.scores),
        *(case.logit for case in sinks),
        *(case.output for case in attention.outputs),
    ]
    used = {name for cover in kernel.covers for name in tables_of(cover.mask)}
    used |= {read.table for expr in floats for read in reads_of_float(expr)}
    return Features(
        tuple(item for item in attention.inputs if item.name in used),
        attention.inputs,
        attention.scores,
        unnormalised,
        sinks,
        attention.outputs,
        attention.skipped,
        any(cover.order for cover in kernel.covers),
        any(needs_profile(cover) for cover in kernel.covers),
    )


def needs_profile(cover: TileCover) -> bool:
    """Whether the tiles of a cover follow data or an order."""
    return bool(cover.order or tables_of(cover.mask))


def follows_inputs(kernel: Kernel) -> bool:
    """Whether the tiles of some cover follow inputs."""
    return any(tables_of(cover.mask) for cover in kernel.covers)


def labels_of(cover: TileCover) -> list[str]:
    """The inputs that the order of a cover sorts by."""
    orders = (case.order for case in cover.order)
    return [order.table for order in orders if isinstance(order, LabelOrder)]


def reads_of(expr: Expr) -> list[Read]:
    """The elements of inputs in an expression, those in indices first, each once."""
    found: dict[Read, None] = {}
    for node in subexpressions(expr):
        if isinstance(node, Read):
            inner = [read for index in node.indices for read in reads_of(index)]
            found |= dict.fromkeys([*inner, node])
    return list(found)


def reads_of_float(expr: FloatExpr) -> list[AnyRead]:
    """The same for a floating expression: integers first, then floating numbers."""
    found: dict[AnyRead, None] = {}
    for part in discrete_parts(expr):
        found |= dict.fromkeys(reads_of(part))
    return list(found | dict.fromkeys(float_reads(expr)))


def before_loops(reads: Sequence[AnyRead], along: Axis) -> list[AnyRead]:
    """Those that do not depend on the axis that the loops go along."""
    return [read for read in reads if not reads_axis(read, along)]


def reads_axis(read: AnyRead, axis: Axis) -> bool:
    """Whether a read depends on an axis."""
    return any(axis in axes_of(index) for index in read.indices)
