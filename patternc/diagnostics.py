"""What the compiler tells a user about a program.

In: findings of any stage. Out: frozen `Diagnostic`s, and `PatternError`, which
carries all the errors of one file at once. Not its job: drawing them
(`patternc.render`) and explaining a code at length (`patternc.codes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from patternc.source import Span


class Severity(Enum):
    """How bad it is: an error stops the compiler, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Label:
    """A secondary place and why it matters (`declared here`)."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `message` says what is wrong, `label` why here.

    `span` is the narrowest place that shows the mistake; `help`, at most one
    sentence, says what to write instead.
    """

    code: str
    message: str
    span: Span
    label: str = ""
    help: str = ""
    others: tuple[Label, ...] = ()
    severity: Severity = Severity.ERROR

    @property
    def is_error(self) -> bool:
        """Whether compilation must stop."""
        return self.severity is Severity.ERROR


class PatternError(Exception):
    """One or more errors in a `.pat` program; `diagnostics` holds them all."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(headline(item) for item in self.diagnostics))


def raise_errors(diagnostics: Iterable[Diagnostic]) -> None:
    """Raise one `PatternError` with everything found, if any of it is an error."""
    found = tuple(diagnostics)
    if any(item.is_error for item in found):
        raise PatternError(found)


def headline(item: Diagnostic) -> str:
    """`file.pat:3:7: error[code]: message`, on one line."""
    line, column = item.span.source.line_and_column(item.span.start)
    place = f"{item.span.source.name}:{line}:{column}"
    return f"{place}: {item.severity.value}[{item.code}]: {item.message}"
