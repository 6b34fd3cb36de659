"""The segments and axes that an attention may name.

In: a layout as written, or as lowered. Out: `LayoutNames`, which says what is wrong
with a name. Not its job: sizes (`check.layouts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from patternc.check.scope import did_you_mean
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import Layout
from patternc.limits import DIAGNOSTICS
from patternc.syntax import ast


@dataclass(frozen=True, slots=True)
class LayoutNames:
    """The names of a layout; `layout` is empty where an attention has none."""

    layout: str = ""
    segments: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()

    def segment_errors(self, name: ast.Name, before: int = 0) -> Iterator[Diagnostic]:
        """An error if there is no such segment; `before` counts earlier findings."""
        if name.text not in self.segments:
            known = self.segments if before < DIAGNOSTICS else ()
            yield self._unknown("unknown-segment", "segment", name, known)

    def axis_errors(self, name: ast.Name, before: int = 0) -> Iterator[Diagnostic]:
        """An error if no segment has such an axis; `before` counts earlier findings."""
        if name.text not in self.axes:
            known = self.axes if before < DIAGNOSTICS else ()
            yield self._unknown("unknown-axis", "axis", name, known)

    def _unknown(
        self, code: str, what: str, name: ast.Name, known: tuple[str, ...]
    ) -> Diagnostic:
        """`known` are the names to suggest; the search for a close one is slow."""
        if not self.layout:
            message = f"`{name.text}` is no {what}: there is no layout"
            help_text = "write `layout name` in the attention"
            return Diagnostic(code, message, name.span, "", help_text)
        message = f"layout `{self.layout}` has no {what} `{name.text}`"
        shown = ", ".join(f"`{one}`" for one in known[:20]) or "none"
        help_text = did_you_mean(name.text, known) or f"it has {shown}"
        return Diagnostic(code, message, name.span, "", help_text)


def written_names(layout: ast.Layout) -> LayoutNames:
    """The names of a layout in the syntax tree."""
    axes = [
        argument.name.text
        for segment in layout.segments
        for argument in segment.arguments
        if argument.name is not None and argument.name.text != "valid"
    ]
    segments = tuple(segment.name.text for segment in layout.segments)
    return LayoutNames(layout.name.text, segments, tuple(axes))


def lowered_names(layout: Layout | None) -> LayoutNames:
    """The names of a layout of the IR."""
    if layout is None:
        return LayoutNames()
    axes = [name for segment in layout.segments for name, _ in segment.axes]
    segments = tuple(segment.name for segment in layout.segments)
    return LayoutNames(layout.name, segments, tuple(axes))
