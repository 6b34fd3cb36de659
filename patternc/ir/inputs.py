"""What each call of an attention gives or assumes, in the pattern IR.

In: nothing. Out: frozen dataclasses of inputs, of the layout of the tokens and of
run-time parameters. Not its job: checking the values of a call (`patternc.contract`),
reading an input in an expression (`ir.expressions`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.source import NOWHERE, Span


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


STEPS = ("layer", "step")
"""Run-time integers that every attention has: the layer, the denoising step."""


@dataclass(frozen=True, slots=True)
class RuntimeParam:
    """A declared run-time parameter of an attention and its default, if any."""

    name: str
    default: int | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)
