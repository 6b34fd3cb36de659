"""Diagnostics as text with carets, or as JSON lines.

In: diagnostics. Out: a string for a terminal or a program. Not its job: finding them.

What a user wrote is shown as it is, but for what a terminal would obey or hide: control
and formatting characters are escaped, tabs become spaces, and long lines are cut around
the place that matters.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patternc.diagnostics import Diagnostic, Label, Severity
from patternc.source import Source, Span

TAB = 4
"""Columns that a tab takes."""

WIDTH = 100
"""Columns of source text that are shown."""

LINES = 4
"""Lines of a longer place that are shown."""


def render_text(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """One paragraph a diagnostic, in the order given, with an empty line between."""
    paint = _COLOURS if color else _PLAIN
    return "\n".join(_paragraph(item, paint) for item in diagnostics)


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """One JSON object a line.

    Lines and columns count from 1, columns in characters; `end_column` is one past
    the last character.
    """
    return "".join(
        json.dumps(_as_object(item), ensure_ascii=True) + "\n" for item in diagnostics
    )


def _as_object(item: Diagnostic) -> dict[str, object]:
    return {
        "code": item.code,
        "severity": item.severity.value,
        "message": item.message,
        "label": item.label,
        "help": item.help,
        **_place(item.span),
        "others": [{"label": o.text, **_place(o.span)} for o in item.others],
    }


def _place(span: Span) -> dict[str, object]:
    line, column = span.source.line_and_column(span.start)
    end_line, end_column = span.source.line_and_column(span.end)
    return {
        "file": span.source.name,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    }


@dataclass(frozen=True, slots=True)
class _Paint:
    """Escape sequences around the parts of a message."""

    error: str = ""
    warning: str = ""
    quiet: str = ""
    bold: str = ""
    end: str = ""


_PLAIN = _Paint()
_COLOURS = _Paint("\033[1;31m", "\033[1;33m", "\033[1;34m", "\033[1m", "\033[0m")


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place to underline: with `^` if it is the main one, else with `-`."""

    span: Span
    text: str
    main: bool


def _paragraph(item: Diagnostic, paint: _Paint) -> str:
    hue = paint.error if item.severity is Severity.ERROR else paint.warning
    head = f"{hue}{item.severity.value}[{item.code}]{paint.end}"
    lines = [f"{head}{paint.bold}: {_safe(item.message)}{paint.end}"]
    marks = [_Mark(item.span, item.label, True)]
    marks += [_Mark(other.span, other.text, False) for other in _shown(item.others)]
    margin = max(len(str(_last_line(mark.span))) for mark in marks)
    for number, source in enumerate(_sources(marks)):
        here = [mark for mark in marks if mark.span.source is source]
        line, column = source.line_and_column(here[0].span.start)
        arrow = "-->" if number == 0 else ":::"
        pad = " " * margin
        place = f"{_safe(source.name)}:{line}:{column}"
        lines.append(f"{pad}{paint.quiet}{arrow}{paint.end} {place}")
        if source.text:
            lines.append(f"{pad} {paint.quiet}|{paint.end}")
            lines += _snippet(source, here, margin, hue, paint)
    if item.help:
        pad = " " * margin
        lines.append(f"{pad} {paint.quiet}={paint.end} help: {_safe(item.help)}")
    return "\n".join(lines) + "\n"


def _shown(others: Sequence[Label]) -> list[Label]:
    return [other for other in others if other.span.source.text or other.text]


def _sources(marks: Sequence[_Mark]) -> list[Source]:
    """The sources of the marks, each once, in order."""
    found: list[Source] = []
    for mark in marks:
        if not any(mark.span.source is source for source in found):
            found.append(mark.span.source)
    return found


def _last_line(span: Span) -> int:
    return span.source.line_and_column(span.end)[0]


def _snippet(
    source: Source, marks: Sequence[_Mark], margin: int, hue: str, paint: _Paint
) -> list[str]:
    """The lines that the marks touch, each with its underlines."""
    under: dict[int, list[tuple[int, int, _Mark, bool]]] = {}
    for mark in marks:
        first, start = source.line_and_column(mark.span.start)
        last, end = source.line_and_column(mark.span.end)
        for line in range(first, last + 1):
            text = source.line_text(line)
            indent = len(text) - len(text.lstrip()) + 1
            left = start if line == first else indent
            right = end if line == last else len(text) + 1
            if right > left or first == last:
                under.setdefault(line, []).append((left, right, mark, line == last))
    out: list[str] = []
    before = 0
    lines = sorted(under)
    shown = lines if len(lines) <= LINES else [*lines[: LINES - 1], lines[-1]]
    for line in shown:
        if before and line > before + 1:
            out.append("...")
        before = line
        window = _Window(source.line_text(line), min(m[0] for m in under[line]))
        number = f"{paint.quiet}{line:>{margin}} |{paint.end}"
        out.append(f"{number} {window.text()}".rstrip())
        for left, right, mark, is_last in sorted(
            under[line], key=lambda entry: (not entry[2].main, entry[0])
        ):
            sign = "^" if mark.main else "-"
            tone = hue if mark.main else paint.quiet
            start, width = window.columns(left, right)
            label = f" {_safe(mark.text)}" if mark.text and is_last else ""
            bar = f"{paint.quiet}{'':>{margin}} |{paint.end}"
            out.append(f"{bar} {' ' * start}{tone}{sign * width}{label}{paint.end}")
    return out


class _Window:
    """A line as a terminal shows it, cut to `WIDTH` around a character."""

    def __init__(self, line: str, around: int) -> None:
        # Nothing far from the place is looked at: a line may be a whole file.
        self.start = max(0, around - 1 - WIDTH // 3) if len(line) > WIDTH else 0
        self.stop = min(len(line), self.start + WIDTH)
        self.more = self.stop < len(line)
        self.cells: list[str] = []
        column = 0
        for char in line[self.start : self.stop]:
            self.cells.append(_cell(char, column))
            column += _width(self.cells[-1])

    def text(self) -> str:
        left = "..." if self.start else ""
        right = "..." if self.more else ""
        return left + "".join(self.cells) + right

    def columns(self, left: int, right: int) -> tuple[int, int]:
        """The first column and the width of 1-based characters `[left, right)`."""
        first = min(max(left - 1, self.start), self.stop) - self.start
        last = min(max(right - 1 - self.start, first), len(self.cells))
        lead = 3 if self.start else 0
        before = sum(map(_width, self.cells[:first]))
        inside = sum(map(_width, self.cells[first:last]))
        return lead + before, max(inside, 1)


def _cell(char: str, column: int) -> str:
    """What stands on the screen for a character."""
    if char == "\t":
        return " " * (TAB - column % TAB)
    return _escaped(char)


def _safe(text: str) -> str:
    """Text without characters that a terminal obeys or hides."""
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"\\u{{{ord(char):x}}}"
    return char


def _width(cell: str) -> int:
    """Columns that a cell takes: wide characters take two, combining ones none."""
    return sum(
        0
        if unicodedata.combining(char)
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in cell
    )
