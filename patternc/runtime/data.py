"""What a package says of inputs, of what data choose, and of how it is chosen.

In: nothing. Out: dataclasses of the manifest; making one checks its bounds. Not its job:
the rest of the manifest (`manifest`), what the steps do (`planning`, `host`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .formula import FloatFormula, Formula, check

Side = int | float | str
"""Of arithmetic: the number of a step, a floating number, or "scale"."""

_LARGEST = 2**30
FUNCTIONS = ("neg", "abs", "exp", "log", "sqrt", "tanh", "sigmoid", "relu")
"""Of the numbers of a row, in a plan."""

_JOINS = ("sum", "mean", "max", "min")
_GROUPS = {
    "columns": 1,
    "diagonals": 0,
    "back diagonals": 0,
    "antidiagonals": 0,
    "blocks": 2,
}
"""What scores are summed by, and how many sizes of blocks that has."""


@dataclass(frozen=True, slots=True)
class InputAxis:
    """One axis: `kind` is b, h, g, q, k, size or group (of any length).

    An axis of tokens has one element for each value of `(position - shift) // divisor`.
    """

    kind: str
    shift: int
    divisor: int
    size: int

    def __post_init__(self) -> None:
        check(self.kind in ("b", "h", "g", "q", "k", "size", "group"), "no axis")
        check(abs(self.shift) <= _LARGEST, "an axis that begins nowhere")
        check(1 <= self.divisor <= _LARGEST, "an axis that divides by nothing")
        check(0 <= self.size <= _LARGEST, "an axis without a size")


@dataclass(frozen=True, slots=True)
class InputFacts:
    """One input: "bool", "int" or "float". Callers give it, or a selection makes it."""

    name: str
    element: str
    axes: tuple[InputAxis, ...]
    is_sorted: bool
    is_given: bool

    def __post_init__(self) -> None:
        check(self.name.isidentifier(), "an input without a name")
        check(self.element in ("bool", "int", "float"), "an input of no element")
        check(len(self.axes) <= 8, "an input of too many axes")
        check(sum(x.kind == "b" for x in self.axes) <= 1, "two axes of the batch")


@dataclass(frozen=True, slots=True)
class StripeFacts:
    """Chosen diagonals and columns, or blocks of `blocks` queries and keys.

    `within` says where a column counts, `blocks_within` where a block does, of "q" alone
    (how far a query is ahead of a key), "h", "n_k" and run-time parameters.
    """

    has_diagonals: bool
    has_columns: bool
    within: Formula
    blocks: tuple[int, ...]
    blocks_within: Formula

    def __post_init__(self) -> None:
        check(len(self.blocks) in (0, 2), "blocks without two sizes")
        check(all(1 <= x <= _LARGEST for x in self.blocks), "blocks of no size")
        is_any = self.has_diagonals or self.has_columns or bool(self.blocks)
        check(is_any, "stripes of nothing")


@dataclass(frozen=True, slots=True)
class ScoreRead:
    """An element that the scores of some heads read for whole rows, or for columns.

    Its gradient is number `slot` of its kernel; `places` are of "q" or "k", "h", "n_k"
    and run-time parameters. `moves`: whether they differ along rows (or columns).
    """

    table: str
    of_rows: bool
    slot: int
    heads: tuple[int, ...]
    places: tuple[Formula, ...]
    moves: bool

    def __post_init__(self) -> None:
        check(self.table.isidentifier(), "an element of no input")
        check(0 <= self.slot < 64, "no number of a gradient")
        check(len(self.places) <= 8, "an element at too many places")
        heads = self.heads
        check(all(0 <= x < 2**16 for x in heads) and bool(heads), "no head")


@dataclass(frozen=True, slots=True)
class ScoreReads:
    """Elements of inputs whose gradients have kernels, and how many each has room for."""

    rows: int
    columns: int
    reads: tuple[ScoreRead, ...]

    def __post_init__(self) -> None:
        check(0 <= self.rows <= 64 and 0 <= self.columns <= 64, "too many elements")
        for read in self.reads:
            room = self.rows if read.of_rows else self.columns
            check(read.slot < room, "a gradient without room")


@dataclass(frozen=True, slots=True)
class PairRead:
    """An element that the scores of some heads read at pairs of a query and a key.

    A tile stores `sums` for it: those of its diagonals if there are no sizes, else of so
    many rows and columns of blocks, or of squares and twice the side of one. `places` are
    of "q", "k", "h", "n_k", run-time parameters and inputs; where each pair reads an
    element of its own, `axes` are those of `q` and `k`, whose places are None.
    """

    table: str
    heads: tuple[int, ...]
    sums: tuple[int, ...]
    places: tuple[Formula | None, ...]
    axes: tuple[int, ...]
    has_order: bool
    reads_head: bool
    reads_data: bool

    def __post_init__(self) -> None:
        check(self.table.isidentifier(), "an element of no input")
        check(len(self.places) <= 8, "an element at too many places")
        heads = self.heads
        check(all(0 <= x < 2**16 for x in heads) and bool(heads), "no head")
        check(len(self.sums) in (0, 2, 3), "sums of no kind")
        check(all(1 <= x <= 2**16 for x in self.sums), "sums of no size")
        free = [at for at, place in enumerate(self.places) if place is None]
        check(sorted(self.axes) == free, "an element at no place")
        check(len(free) in (0, 2), "an element at no pair")


@dataclass(frozen=True, slots=True)
class RowCase:
    """The logit of a sink, or what stands in the place of the output, for some heads.

    The formula is of "q", "h", "n_k", run-time parameters and elements of inputs; that of
    an output also of "o", the output, and "own", the row of `v` at the query.
    """

    heads: tuple[int, ...]
    value: FloatFormula

    def __post_init__(self) -> None:
        heads = self.heads
        check(all(0 <= x < 2**16 for x in heads) and bool(heads), "no head")
        check(len(set(heads)) == len(heads), "a head that comes twice")


@dataclass(frozen=True, slots=True)
class JudgePart:
    """What a mask asks of queries alone ("q"), or of keys alone ("k"); see `Judge`."""

    of_queries: bool
    is_truth: bool
    value: Formula


@dataclass(frozen=True, slots=True)
class JudgeTable:
    """Elements that a mask reads at pairs: a place for each axis, None if that differs."""

    table: str
    places: tuple[Formula | None, ...]


@dataclass(frozen=True, slots=True)
class JudgeCell:
    """Elements whose bounds are looked up once for every pair of tiles.

    Each place is of one side alone, "q", "k" or "" for neither.
    """

    table: str
    sides: tuple[str, ...]
    places: tuple[Formula, ...]

    def __post_init__(self) -> None:
        check(len(self.sides) == len(self.places) <= 8, "an element at no place")
        check(all(side in ("q", "k", "") for side in self.sides), "a side that is none")


@dataclass(frozen=True, slots=True)
class Judge:
    """Whether a mask may hold, and may fail, for some queries and keys.

    `seen` is of bounds: "part_0", ... of `parts`, "cell_0", ... of `cells`, "h", "n_k",
    parameters, "true" and "false"; `read n table_0` of as many bounds is what `tables`
    hold there. `by_step`: bounds have a step.
    """

    parts: tuple[JudgePart, ...]
    tables: tuple[JudgeTable, ...]
    cells: tuple[JudgeCell, ...]
    by_step: bool
    seen: Formula


@dataclass(frozen=True, slots=True)
class ListedCover:
    """Heads whose tiles are listed for the inputs of a call.

    `alike`: how many, one after another, have the same tiles; 0 for all.
    """

    heads: tuple[int, ...]
    alike: int
    judge: Judge

    def __post_init__(self) -> None:
        check(all(0 <= x < 2**16 for x in self.heads) and bool(self.heads), "no head")
        check(0 <= self.alike <= 2**16, "no number of heads")


@dataclass(frozen=True, slots=True)
class PlanProbe:
    """The scores of the rows from `first` to before `end`, or their softmax.

    Formulas are of "q_offset", "last" (the last query), "n_k" and parameters. With a
    `stride` rows and keys have so many tokens; see `Probe` in `host`.
    """

    first: Formula
    end: Formula
    params: tuple[str, ...]
    is_softmax: bool
    stride: int
    residue: int
    times: float

    def __post_init__(self) -> None:
        check(1 <= self.stride <= 2**16, "a stride that is none")
        check(0 <= self.residue < self.stride, "a residue that is none")
        check(math.isfinite(self.times), "a factor that is none")


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One map of a plan, by `kind`; fields that it does not use are empty.

    "sums": those of probe `probe`, joined by `how`, by groups `by` of `sizes`, and over
    so many `heads`. "blocks": rows of Q pooled by `how` in blocks of the first of
    `sizes`, times those of K by `by` in the second. "rows": each row of Q, after the
    functions in `sides`, times those of K by `by` in blocks of the one size. "where": the
    entries of step `operand` at which `condition` holds, of the keys "e_0" and "e_1".
    "softmax": of step `operand`. "joined": its live entries, added up over so many `heads`.
    "+", "-", "*" and "/": of two `sides`: the number of a step, a floating number, or
    "scale".
    """

    kind: str
    probe: int
    how: str
    by: str
    sizes: tuple[int, ...]
    heads: int
    operand: int
    condition: Formula
    sides: tuple[Side, ...]

    def __post_init__(self) -> None:
        check(all(1 <= x <= _LARGEST for x in self.sizes), "a block of no size")
        check(self.probe >= 0 and self.operand >= 0, "no number of a step")
        check(1 <= self.heads <= 2**16, "no number of heads")
        if self.kind == "sums":
            check(self.how in _JOINS and self.by in _GROUPS, "a sum of no kind")
            check(len(self.sizes) == _GROUPS[self.by], "blocks without sizes")
        elif self.kind == "blocks":
            check(self.how in _JOINS and self.by in _JOINS, "a pool of no kind")
            check(len(self.sizes) == 2, "blocks without sizes")
        elif self.kind == "rows":
            check(self.by in _JOINS, "a pool of no kind")
            check(len(self.sizes) == 1, "blocks without a size")
            check(all(word in FUNCTIONS for word in self.sides), "no function")
        elif self.kind in ("+", "-", "*", "/"):
            check(len(self.sides) == 2, "arithmetic of one side")
            for side in self.sides:
                is_word = isinstance(side, str)
                check(not is_word or side == "scale", "a side that is none")
                is_wrong = isinstance(side, int) and side < 0
                check(not is_wrong, "no number of a step")
        else:
            kinds = ("where", "softmax", "joined")
            check(self.kind in kinds, f"a step of kind {self.kind!r}")


@dataclass(frozen=True, slots=True)
class PlanSelection:
    """What is chosen of the last step's numbers.

    `table` is the input that it makes, `firsts` for each key the run-time parameter that
    says where its values begin, or "". `ends` are the least and greatest value of each
    key, `moves` how far a table's axis begins behind the former. `by_rows`: each value of
    the first key is a scope of its own. `choice` is "top" (`amount`), "top_p" or a
    comparison (`share`), between `least` and `most` if there are any.
    """

    table: str
    firsts: tuple[str, ...]
    ends: tuple[Formula, ...]
    moves: tuple[Formula, ...]
    by_rows: bool
    steps: tuple[PlanStep, ...]
    always: Formula | None
    choice: str
    amount: Formula | None
    share: float
    keeps_crossing: bool
    least: Formula | None
    most: Formula | None

    def __post_init__(self) -> None:
        keys = len(self.firsts)
        check(self.table.isidentifier(), "a selection without a name")
        check(keys in (1, 2), "a selection of no key")
        check(len(self.ends) == 2 * keys, "keys without ends")
        check(len(self.moves) == keys, "keys without places")
        check(keys == 2 or not self.by_rows, "rows of one key")
        choices = ("top", "top_p", "<", "<=", ">", ">=", "==", "!=")
        check(self.choice in choices, f"a choice of kind {self.choice!r}")
        check((self.amount is None) == (self.choice != "top"), "a choice of no amount")
        check(math.isfinite(self.share), "a share that is no number")
        check(1 <= len(self.steps) <= 1000, "a selection of no map")
        for at, step in enumerate(self.steps):
            before = [side for side in step.sides if isinstance(side, int)]
            if step.kind in ("where", "softmax", "joined"):
                before.append(step.operand)
            elif step.kind not in ("sums", "blocks", "rows"):
                check(bool(before), "arithmetic of numbers alone")
            check(all(x < at for x in before), "a step before what it needs")


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """How keys are chosen before the attention.

    `params` are the run-time parameters that callers give. `shared` is the shared
    memory of a block that tiles were chosen for, by target.
    """

    params: Mapping[str, int | None]
    probes: tuple[PlanProbe, ...]
    selections: tuple[PlanSelection, ...]
    shared: Mapping[str, int]

    def __post_init__(self) -> None:
        check(all(x.isidentifier() for x in self.params), "a parameter without a name")
        values = [x for x in self.params.values() if x is not None]
        check(all(abs(x) <= _LARGEST for x in values), "a parameter beyond 2**30")
        check(all(0 < x <= 1 << 20 for x in self.shared.values()), "absurd memory")
        check(bool(self.selections), "a plan of nothing")
        for probe in self.probes:
            check(set(probe.params) <= self.params.keys(), "an unknown parameter")
        for selection in self.selections:
            for step in selection.steps:
                is_known = step.kind != "sums" or step.probe < len(self.probes)
                check(is_known, "a probe that is not there")
