"""What a program says about its speed, in the pattern IR: orders and schedules.

In: nothing. Out: frozen dataclasses. None of them changes a result. Not its job: what an
order is worth and which tile is chosen (`patternc.plan`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.source import NOWHERE, Span


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
