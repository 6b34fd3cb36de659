"""The nodes of selections at run time: maps, and sets of their keys.

In: nothing. Out: the frozen dataclasses that `let` clauses become. Not its job: their
meaning (`backends.maps`, `backends.choosing`).

A *map* gives a floating number to every entry, separately for each batch element and
query head. Its entries are known by *keys*: integers such as `q // 128` and `k // 128`.
Only some entries are there: those are *live*. `keys_of` says what the keys are, in
terms of the tokens `q` and `k`; conditions and further keys on a map are expressions
over its own keys, which they know as the axes FIRST, SECOND and THIRD. A map with
*channels* has a vector of D numbers instead of one: the rows of `Q` and of `K`.

A *selection* is a set of keys for each batch element and head. A plan of a call holds
it as a table of truth values [B, H, ...] with one axis for each key: the index of a key
is its value less the least one that the key has in the call. The mask reads the table
as it reads an input, and the least values as run-time parameters (`Selection.first`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from patternc.ir.expressions import (
    KEY,
    QUERY,
    Axis,
    BoolExpr,
    CompareOp,
    FloatExpr,
    Index,
    IntExpr,
)
from patternc.source import NOWHERE, Span

KEY_AXES = (Axis.FIRST, Axis.SECOND, Axis.THIRD)
"""The keys of a map, in order, as its own expressions read them."""


class Tokens(Enum):
    """Whose rows a map with channels starts from."""

    QUERIES = "Q"
    KEYS = "K"


class Sharing(Enum):
    """The heads that are added up before a choice, or in a reduction."""

    ALONE = ""
    ALL = "h"  # all query heads
    GROUP = "g"  # the query heads of one key/value head


class Reduction(Enum):
    """How the live entries of a group become one number; without any none is live."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    MIN = "min"
    ENTROPY = "entropy"  # the sum of -x * log(x), 0 where x is 0


class MapOp(Enum):
    """Binary operations on the numbers of two maps with the same keys."""

    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    FLOORDIV = "//"
    MIN = "min"
    MAX = "max"


class MapFunction(Enum):
    """Functions of one number."""

    NEGATE = "-"
    ABS = "abs"
    EXP = "exp"
    LOG = "log"
    SQRT = "sqrt"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    RELU = "relu"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of Q, with the key `q`, or of K, with the key `k`; D channels.

    Those of K are that of the head's key/value head. All are live.
    """

    tokens: Tokens
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Logits:
    """`scores`: Q @ K * scale, after the `score` lines. Keys `q` and `k`; all live."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapNumber:
    """A number, without keys."""

    value: float
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapScale:
    """`scale`, the factor of the logits of the call, without keys."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapValue:
    """A floating expression over the map's own keys, such as an element of an input.

    It reads the axes FIRST, SECOND and THIRD, HEAD and LENGTH, run-time parameters and
    inputs. All entries are live.
    """

    value: FloatExpr
    keys: tuple[IntExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapAt:
    """`operand` read at `places`, one for each of its keys, from a map of other keys.

    `places` are over the axes of this map, whose keys are `keys`. Live where the entry
    that is read is there and live.
    """

    operand: MapExpr
    places: tuple[IntExpr, ...]
    keys: tuple[IntExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapBinary:
    """`lhs op rhs`, for maps with the same keys, or one without any; live where both are.

    Where one side has channels and the other does not, its number counts for all.
    """

    op: MapOp
    lhs: MapExpr
    rhs: MapExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapCall:
    """A function of every number."""

    function: MapFunction
    operand: MapExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MapWhere:
    """The entries of `operand` where `condition` holds; the others are not live."""

    operand: MapExpr
    condition: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Softmax:
    """exp(x) over its sum along the last key, over live entries.

    A row whose entries are all minus infinity gives 0, a row with NaN gives NaN.
    """

    operand: MapExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Reduce:
    """`sum(operand by ...)` and its like.

    `by` are the new keys over the operand's axes, `keys` the same in terms of tokens.
    `over` says which heads are put together too: all of them get the same numbers.
    """

    how: Reduction
    operand: MapExpr
    by: tuple[IntExpr, ...]
    keys: tuple[IntExpr, ...]
    over: Sharing = Sharing.ALONE
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Product:
    """`lhs @ rhs`: the sum over channels, for every pair of an entry of each.

    The keys are those of `lhs`, then those of `rhs`; live where both entries are.
    """

    lhs: MapExpr
    rhs: MapExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Norm:
    """The length of each vector: the root of the sum of squares over channels."""

    operand: MapExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Count:
    """How many keys a selection holds, for each value of those of its keys that are
    named here: those that it is `per`."""

    selection: str
    keys: tuple[IntExpr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


MapExpr = (
    Rows
    | Logits
    | MapNumber
    | MapScale
    | MapValue
    | MapAt
    | MapBinary
    | MapCall
    | MapWhere
    | Softmax
    | Reduce
    | Product
    | Norm
    | Count
)


class Choice(Enum):
    """By what keys are chosen, in the order of `Selection`."""

    TOP = "top"  # the first `amount` ones
    TOP_P = "top_p"  # until they have `amount` of the sum
    ABOVE = "above"  # those whose number compares with `amount`


class Crossing(Enum):
    """Whether `top_p` takes the key with which the sum is reached."""

    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of the keys of a map: for each batch element, head, and scope.

    A scope is all live entries that agree in the keys `per` (by number): without any,
    all of a head. They are ranked: `always` members first, by their keys; then the
    others, the greatest number first, NaN last, equals by their keys. The set is the
    first ones: as many as `amount` (TOP), as it takes for `amount` of the sum of all
    numbers above 0 (TOP_P), or those for which `number compare amount` holds (ABOVE),
    which are the first ones for GT and GE. At least `least` and at most `most` of them;
    `always` members are in it whatever `amount` and `most` say. `amount`, `least` and
    `most` have the keys that `per` names, or none.

    `shared` says which heads have the same set, for the numbers are the same. `table`
    is the name of its table; `starts_at_0` says for each key whether its least value is
    0 in every call. The least value of another one, and how many values a key has, are
    run-time parameters named by `first` and `size`.

    A selection of one key may be widened: its table then holds a value where one of
    `reach` values, from that one on, is chosen, and begins `reach - 1` values earlier.
    """

    table: str
    choice: Choice
    values: MapExpr
    amount: MapExpr
    per: tuple[int, ...] = ()
    least: MapExpr | None = None
    most: MapExpr | None = None
    always: BoolExpr | None = None
    crossing: Crossing = Crossing.KEEP
    compare: CompareOp = CompareOp.GT
    shared: Sharing = Sharing.ALONE
    starts_at_0: tuple[bool, ...] = ()
    reach: int = 1
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def keys(self) -> tuple[IntExpr, ...]:
        """What its members are, in terms of the tokens `q` and `k`."""
        return keys_of(self.values)

    def first(self, place: int) -> str:
        """The parameter that holds the least value of a key; "" if that is 0."""
        return "" if self.starts_at_0[place] else f"first_{place + 1}_of_{self.table}"

    def size(self, place: int) -> str:
        """The parameter that holds how many values a key has, from the least one on."""
        return f"size_{place + 1}_of_{self.table}"


def keys_of(map_: MapExpr) -> tuple[IntExpr, ...]:
    """The keys of a map in terms of the tokens `q` and `k`, in order."""
    match map_:
        case Rows(tokens=Tokens.QUERIES):
            return (QUERY,)
        case Rows():
            return (KEY,)
        case Logits():
            return (QUERY, KEY)
        case MapNumber() | MapScale():
            return ()
        case MapValue() | MapAt() | Reduce() | Count():
            return map_.keys
        case MapBinary():
            return keys_of(map_.lhs) or keys_of(map_.rhs)
        case MapCall() | MapWhere() | Softmax() | Norm():
            return keys_of(map_.operand)
        case Product():
            return (*keys_of(map_.lhs), *keys_of(map_.rhs))
        case _:
            assert_never(map_)


def has_channels(map_: MapExpr) -> bool:
    """Whether a map has a vector for each entry."""
    match map_:
        case Rows():
            return True
        case Logits() | MapNumber() | MapScale() | MapValue():
            return False
        case Softmax() | Product() | Norm() | Count():
            return False
        case MapAt() | MapCall() | MapWhere() | Reduce():
            return has_channels(map_.operand)
        case MapBinary():
            return has_channels(map_.lhs) or has_channels(map_.rhs)
        case _:
            assert_never(map_)


def key_axis(place: int) -> Index:
    """The key in this place, as a map's own expressions read it."""
    return Index(KEY_AXES[place])
