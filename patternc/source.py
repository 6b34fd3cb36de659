"""Source text and places in it.

In: the name and text of a `.pat` file. Out: `Span`s that every later stage carries,
so that a message can point at what the user wrote. Not its job: reading files
(`patternc.syntax.load`) and drawing carets (`patternc.render`).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class Source:
    """One `.pat` file: its display name and its whole text."""

    name: str
    text: str
    _starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = [0]
        starts += [at + 1 for at, char in enumerate(self.text) if char == "\n"]
        object.__setattr__(self, "_starts", starts)

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column (in characters) of a character offset."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of a 1-based line, without its newline."""
        start = self._starts[line - 1]
        end = self._starts[line] if line < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class Span:
    """The half-open range of characters `[start, end)` of `source`."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """The 1-based line on which the span starts."""
        return self.source.line_and_column(self.start)[0]

    @property
    def text(self) -> str:
        """What the user wrote there."""
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.source, self.start, other.end)


NOWHERE = Span(Source("<built in>", ""), 0, 0)
"""The place of what the compiler made itself."""
