"""The nodes of the pattern IR: an attention, and the name of every node.

In: nothing. Out: the frozen dataclasses that checking makes, passes rewrite and
planning reads. Those of expressions (`ir.expressions`), of inputs, layouts and run-time
parameters (`ir.inputs`), of heads (`ir.cases`), of assertions (`ir.assertions`) and of
orders and schedules (`ir.schedules`) can all be imported from here, too. Not its job:
meaning (`ir.evaluate`), traversal (`ir.walk`), text (`ir.text`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from patternc.ir.assertions import (
    AssertDensity,
    AssertEveryRow,
    Assertion,
    AssertRetention,
    AssertSets,
    PairSet,
    Quantifier,
    Relation,
)
from patternc.ir.cases import (
    HeadCase,
    OutputCase,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
)
from patternc.ir.expressions import (
    EMPTY_PATTERN,
    FULL_PATTERN,
    HEAD,
    KEY,
    KEY_TILE,
    LENGTH,
    QUERY,
    QUERY_TILE,
    UNBOUNDED,
    Abs,
    All,
    Any,
    Axis,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    Expr,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatOp,
    FloatRead,
    FloatSelect,
    FromInt,
    Given,
    GivenValue,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)
from patternc.ir.inputs import (
    STEPS,
    AxisKind,
    Element,
    Input,
    InputAxis,
    Layout,
    RuntimeParam,
    Segment,
)
from patternc.ir.schedules import (
    AxesOrder,
    CurveKind,
    CurveOrder,
    LabelOrder,
    OrderCase,
    PhaseOrder,
    TileOrder,
    TokenOrder,
    WrittenSchedule,
)
from patternc.ir.selection import Selection
from patternc.source import NOWHERE, Span

__all__ = [
    "EMPTY_PATTERN",
    "FULL_PATTERN",
    "HEAD",
    "KEY",
    "KEY_TILE",
    "LENGTH",
    "QUERY",
    "QUERY_TILE",
    "STEPS",
    "UNBOUNDED",
    "Abs",
    "All",
    "Any",
    "AssertDensity",
    "AssertEveryRow",
    "AssertRetention",
    "AssertSets",
    "Assertion",
    "Attention",
    "AxesOrder",
    "Axis",
    "AxisKind",
    "Binary",
    "BoolExpr",
    "Compare",
    "CompareOp",
    "Const",
    "CurveKind",
    "CurveOrder",
    "Element",
    "Expr",
    "FloatBinary",
    "FloatCall",
    "FloatConst",
    "FloatExpr",
    "FloatFunction",
    "FloatOp",
    "FloatRead",
    "FloatSelect",
    "FromInt",
    "Given",
    "GivenValue",
    "HeadCase",
    "Index",
    "Input",
    "InputAxis",
    "IntExpr",
    "IntOp",
    "LabelOrder",
    "Layout",
    "Not",
    "OrderCase",
    "OutputCase",
    "PairSet",
    "Param",
    "PhaseOrder",
    "Quantifier",
    "Read",
    "Relation",
    "RuntimeParam",
    "ScoreCase",
    "Segment",
    "SinkCase",
    "TileOrder",
    "TokenOrder",
    "Truth",
    "WeightCase",
    "WeightKind",
    "WrittenSchedule",
]


@dataclass(frozen=True, slots=True)
class Attention:
    """A checked attention, parameters bound except the run-time ones.

    `heads` query heads share `kv_heads` key and value heads, `heads // kv_heads`
    to each. The cases cover every head once. Heads without a score, weight, sink,
    output or order case keep the plain one. `skipped` heads give 0 (LSE -inf), visit
    nothing, and have the mask `empty`.

    `selections` are computed one after another before the attention: their tables are
    among the inputs, and the least values of their keys among the parameters, though no
    caller gives either. `dense_cases` are the masks that may be used in the place of
    `cases` where that is cheaper; () where the program does not allow it.
    """

    name: str
    heads: int
    kv_heads: int
    params: tuple[RuntimeParam, ...]
    cases: tuple[HeadCase, ...]
    asserts: tuple[Assertion, ...] = ()
    inputs: tuple[Input, ...] = ()
    layout: Layout | None = None
    orders: tuple[OrderCase, ...] = ()
    scores: tuple[ScoreCase, ...] = ()
    weights: tuple[WeightCase, ...] = ()
    sinks: tuple[SinkCase, ...] = ()
    outputs: tuple[OutputCase, ...] = ()
    skipped: tuple[int, ...] = ()
    schedule: WrittenSchedule | None = None
    selections: tuple[Selection, ...] = ()
    dense_cases: tuple[HeadCase, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def group_size(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    def case_of(self, head: int) -> HeadCase:
        """The case of a query head. Raises `LookupError` if there is none."""
        for case in self.cases:
            if head in case.heads:
                return case
        raise LookupError(f"no case for head {head}")
