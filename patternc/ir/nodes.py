"""The nodes of the pattern IR.

In: nothing. Out: the frozen dataclasses that checking makes, passes rewrite and
planning reads. Not its job: meaning (`ir.evaluate`), traversal (`ir.walk`), text
(`ir.text`).

An expression is an integer (`IntExpr`), a truth value (`BoolExpr`) or, in scores and
outputs, a floating number (`FloatExpr`) over the
indices `q`, `k`, `h`, `N` (absolute query and key position, query head, number of
keys) and run-time parameters. Tile schedules use `qt` and `kt` (query and key tile)
too. `//` and `%` are floor division and its remainder. Equality is structural:
spans do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from patternc.source import NOWHERE, Span

if TYPE_CHECKING:
    from patternc.ir.selection import (
        Selection,
    )


class IntOp(Enum):
    """Binary integer operations."""

    ADD = "+"
    SUB = "-"
    MUL = "*"
    FLOORDIV = "//"
    MOD = "%"
    MIN = "min"
    MAX = "max"


class CompareOp(Enum):
    """Comparisons of two integers."""

    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    EQ = "=="
    NE = "!="


class Axis(Enum):
    """What an index counts."""

    QUERY = "q"
    KEY = "k"
    HEAD = "h"
    LENGTH = "N"
    QUERY_TILE = "qt"
    KEY_TILE = "kt"
    FIRST = "first key"  # those of a map: see `ir.selection`
    SECOND = "second key"
    THIRD = "third key"


@dataclass(frozen=True, slots=True)
class Const:
    """An integer literal of at most 64 bits."""

    value: int
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Index:
    """The value of an axis at the point that is looked at."""

    axis: Axis
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Param:
    """A run-time integer parameter, given at each call."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """`lhs op rhs` on integers."""

    op: IntOp
    lhs: IntExpr
    rhs: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Abs:
    """The absolute value of an integer."""

    operand: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """An element of an integer or truth-value input (a truth value reads as 0 or 1).

    The batch element, where the input has a batch axis, is that of the call: `indices`
    leave it out. Every index is inside its axis wherever the comparison around it
    matters: checking puts `0 <= index < size` beside the comparison that reads.
    """

    table: str
    indices: tuple[IntExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Truth:
    """`full` (True) or `empty` (False)."""

    value: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """`lhs op rhs`, a truth value."""

    op: CompareOp
    lhs: IntExpr
    rhs: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class All:
    """True where every term is (`&`); `All(())` is `full`."""

    terms: tuple[BoolExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Any:
    """True where some term is (`|`); `Any(())` is `empty`."""

    terms: tuple[BoolExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """True where `term` is false (`~`)."""

    term: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


IntExpr = Const | Index | Param | Binary | Abs | Read
BoolExpr = Truth | Compare | All | Any | Not
Expr = IntExpr | BoolExpr

UNBOUNDED = 2**30
"""Beyond every length: the end of a loop that runs to the last key or key tile."""

QUERY = Index(Axis.QUERY)
KEY = Index(Axis.KEY)
HEAD = Index(Axis.HEAD)
LENGTH = Index(Axis.LENGTH)
QUERY_TILE = Index(Axis.QUERY_TILE)
KEY_TILE = Index(Axis.KEY_TILE)
FULL_PATTERN = Truth(True)
EMPTY_PATTERN = Truth(False)


class FloatOp(Enum):
    """Binary operations on floating numbers."""

    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    MIN = "min"
    MAX = "max"


class FloatFunction(Enum):
    """Functions of one floating number."""

    NEGATE = "-"
    ABS = "abs"
    EXP = "exp"
    LOG = "log"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    SQRT = "sqrt"
    RELU = "relu"
    SIGN = "sign"  # in derivatives only (`ir.derive`): -1, 0 or 1


class Given(Enum):
    """The floating values that a kernel has at hand.

    SCORE is `s`, the scaled logit q.k * scale in natural units (in `score` only);
    OUTPUT is `o`, an element of the output row, and VALUE is `v`, the same element of
    the query token's own value row (in `output` only).
    """

    SCORE = "s"
    OUTPUT = "o"
    VALUE = "v"


@dataclass(frozen=True, slots=True)
class FloatConst:
    """A number written with or without a decimal point."""

    value: float
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class GivenValue:
    """`s`, `o` or `v`."""

    which: Given
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FromInt:
    """An integer expression as a floating number."""

    operand: IntExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatRead:
    """An element of a floating input; indices as for `Read`, read as 0 outside."""

    table: str
    indices: tuple[IntExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatBinary:
    """`lhs op rhs` on floating numbers."""

    op: FloatOp
    lhs: FloatExpr
    rhs: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatCall:
    """A function of one floating number."""

    function: FloatFunction
    operand: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FloatSelect:
    """`then` where `condition` holds, else `otherwise`: `where(c, a, b)`."""

    condition: BoolExpr
    then: FloatExpr
    otherwise: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


FloatExpr = (
    FloatConst
    | GivenValue
    | FromInt
    | FloatRead
    | FloatBinary
    | FloatCall
    | FloatSelect
)


class Element(Enum):
    """What an input holds."""

    INT = "int"
    BOOL = "bool"
    FLOAT = "float"


class AxisKind(Enum):
    """What an axis of an input runs over."""

    BATCH = "b"
    HEAD = "h"  # query heads
    KV_HEAD = "g"  # key/value heads
    QUERY = "q"  # queries by absolute position: q_offset + n_q long
    KEY = "k"  # keys: N long
    SIZE = "size"  # a length written in the program
    GROUP = "group"  # the keys of a selection: as many as its plan has


@dataclass(frozen=True, slots=True)
class InputAxis:
    """One axis of an input as declared.

    For QUERY and KEY the axis is indexed by `(position - shift) // divisor`, as in
    `keep[q // 128, k // 128]`; `size` is the length of a SIZE axis, else 0.
    """

    kind: AxisKind
    shift: int = 0
    divisor: int = 1
    size: int = 0


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor given at each call: `input doc[k] : int`.

    Its shape is that of `axes`, in order; without a BATCH axis a leading batch axis of
    1 or B may be given too. `is_sorted` promises that values never fall along the
    last axis.
    """

    name: str
    element: Element
    axes: tuple[InputAxis, ...]
    is_sorted: bool = False
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of a layout: `[start, start + size)`.

    `axes` are names and sizes, outermost first; their product is `size`. `valid` is
    the input or run-time parameter that says how many tokens count; the others are
    padding, which sees only itself. Checking has already put all of that into the
    masks; the layout remains for orders and pictures.
    """

    name: str
    start: int
    size: int
    axes: tuple[tuple[str, int], ...] = ()
    valid: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments of a sequence, in order; together N tokens."""

    name: str
    segments: tuple[Segment, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def size(self) -> int:
        """All tokens."""
        return sum(segment.size for segment in self.segments)


class CurveKind(Enum):
    """Space-filling curves."""

    HILBERT = "hilbert"
    MORTON = "morton"


@dataclass(frozen=True, slots=True)
class AxesOrder:
    """Tokens sorted by coordinates, the first axis named outermost."""

    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TileOrder:
    """Boxes of `sizes` tokens (one for each axis) one after another, row-major."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PhaseOrder:
    """Tokens sorted by position % stride, then by position."""

    stride: int


@dataclass(frozen=True, slots=True)
class CurveOrder:
    """Tokens along a space-filling curve through the segment's axes."""

    curve: CurveKind


@dataclass(frozen=True, slots=True)
class LabelOrder:
    """Tokens sorted by an integer input (stable)."""

    table: str


TokenOrder = AxesOrder | TileOrder | PhaseOrder | CurveOrder | LabelOrder


@dataclass(frozen=True, slots=True)
class OrderCase:
    """The order of one segment (None: of the whole sequence) for some heads.

    A schedule: it changes speed, never a result.
    """

    heads: tuple[int, ...]
    segment: str | None
    order: TokenOrder
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ScoreCase:
    """What replaces the logit `s` of some heads."""

    heads: tuple[int, ...]
    score: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


class WeightKind(Enum):
    """How logits become weights: SOFTMAX normalises, the others do not."""

    SOFTMAX = "softmax"
    RELU2 = "relu2"  # max(s * factor, 0)^2, MossFormer
    SIGMOID = "sigmoid"  # sigmoid(s + bias)


@dataclass(frozen=True, slots=True)
class WeightCase:
    """The weights of some heads; `argument` is relu2's factor or sigmoid's bias."""

    heads: tuple[int, ...]
    kind: WeightKind
    argument: float = 0.0
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SinkCase:
    """A learned logit without a key: it joins the softmax's sum, and adds no value."""

    heads: tuple[int, ...]
    logit: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OutputCase:
    """What replaces the output `o` of some heads; `skip` heads have no case at all."""

    heads: tuple[int, ...]
    output: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


STEPS = ("layer", "step")
"""Run-time integers that every attention has: the layer, the denoising step."""


@dataclass(frozen=True, slots=True)
class RuntimeParam:
    """A declared run-time parameter of an attention and its default, if any."""

    name: str
    default: int | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class WrittenSchedule:
    """A program's own choice of its tile and launch; None: left to the compiler."""

    block_q: int | None = None
    block_k: int | None = None
    warps: int | None = None
    stages: int | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def given(self) -> dict[str, int]:
        """The settings that are written, by name."""
        values = {
            "block_q": self.block_q,
            "block_k": self.block_k,
            "warps": self.warps,
            "stages": self.stages,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class HeadCase:
    """The mask of some query heads: `(q, k)` is visible where `mask` is true."""

    heads: tuple[int, ...]
    mask: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


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


class Quantifier(Enum):
    """How an assertion's set depends on the head."""

    EACH_HEAD = "each"  # the statement holds for every head on its own
    UNION = "union"  # the sets of all heads are united first


@dataclass(frozen=True, slots=True)
class PairSet:
    """A set of (q, k) pairs in an assertion.

    `pattern` is None for the attention's own mask. With `quantifier` UNION the
    sets of the heads that the assertion speaks of are united.
    """

    pattern: BoolExpr | None
    quantifier: Quantifier = Quantifier.EACH_HEAD
    span: Span = field(default=NOWHERE, compare=False, repr=False)


class Relation(Enum):
    """How the two sides of a set assertion compare."""

    WITHIN = "within"
    EQUAL = "=="


@dataclass(frozen=True, slots=True)
class AssertSets:
    """`assert lhs within rhs` or `assert lhs == rhs`, for every length."""

    relation: Relation
    lhs: PairSet
    rhs: PairSet
    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AssertEveryRow:
    """`assert every q has k`: no query has an empty row, at every length."""

    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AssertRetention:
    """`assert retention <= bound`: see `analysis.retention`; any length."""

    op: CompareOp
    bound: int
    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AssertDensity:
    """`assert density < bound at N = length`, the mean over `heads`.

    `bound` is kept as the fraction `numerator / denominator` that was written.
    """

    op: CompareOp
    numerator: int
    denominator: int
    length: int
    heads: tuple[int, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Assertion = AssertSets | AssertEveryRow | AssertRetention | AssertDensity
