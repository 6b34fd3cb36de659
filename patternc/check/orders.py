"""Token orders: what is wrong with an `order`, and the orders of the IR.

In: `order` clauses of an attention with its layout and inputs. Out: diagnostics and
`TokenOrder`s. Not its job: heads (`check.cases`), permutations (`plan.order`).
"""

from __future__ import annotations

from dataclasses import dataclass

from patternc.check.environment import Environment
from patternc.check.layout_names import lowered_names
from patternc.check.layouts import WHOLE
from patternc.check.scope import did_you_mean
from patternc.check.values import constant_of
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import (
    AxesOrder,
    AxisKind,
    CurveKind,
    CurveOrder,
    Element,
    Input,
    InputAxis,
    LabelOrder,
    PhaseOrder,
    Segment,
    TileOrder,
    TokenOrder,
)
from patternc.limits import DIAGNOSTICS, POSITION
from patternc.source import Span
from patternc.syntax import ast

KINDS = ("axes", "tile", "phase", "curve", "labels")
"""The ways to order tokens."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Lowers the orders of one attention; mistakes go to `found`."""

    env: Environment
    found: list[Diagnostic]

    def lower(self, clause: ast.Order) -> TokenOrder | None:
        """The order of a clause, or None after a mistake."""
        segment = self.segment(clause.segment)
        if segment is None and clause.segment.text != WHOLE:
            return None
        match clause.kind.text:
            case "axes":
                return self.axes(clause, segment)
            case "tile":
                return self.tile(clause, segment)
            case "phase":
                return self.phase(clause)
            case "curve":
                return self.curve(clause, segment)
            case "labels":
                return self.labels(clause)
        message = f"`{clause.kind.text}` is no order"
        help_text = did_you_mean(clause.kind.text, KINDS)
        shown = ", ".join(f"`{kind}`" for kind in KINDS)
        self.report(message, clause.kind.span, help_text or f"there are {shown}")
        return None

    def segment(self, name: ast.Name) -> Segment | None:
        """The segment of that name; None for the whole sequence and for mistakes."""
        if name.text == WHOLE:
            return None
        for segment in () if self.env.layout is None else self.env.layout.segments:
            if segment.name == name.text:
                return segment
        self.found.extend(
            lowered_names(self.env.layout).segment_errors(name, len(self.found))
        )
        return None

    def axes(self, clause: ast.Order, segment: Segment | None) -> TokenOrder | None:
        """`axes(y, x, f)`: every axis of the segment once."""
        known = self.known_axes(clause, segment)
        if known is None:
            return None
        names: list[ast.Name] = []
        for argument in clause.arguments:
            if argument.name is not None or not isinstance(argument.value, ast.Name):
                message = "an order by axes lists their names"
                self.report(message, argument.span, f"write `{_by_axes(known)}`")
                return None
            names.append(argument.value)
        if not self.is_permutation(clause, names, tuple(known)):
            return None
        return AxesOrder(tuple(name.text for name in names))

    def tile(self, clause: ast.Order, segment: Segment | None) -> TokenOrder | None:
        """`tile(f = 6, y = 8, x = 8)`: a size for every axis of the segment."""
        known = self.known_axes(clause, segment)
        if known is None:
            return None
        names = [part.name for part in clause.arguments if part.name is not None]
        if len(names) < len(clause.arguments):
            message = "the sizes of a tile have the names of the axes"
            shown = ", ".join(
                f"{name} = {min(size, 8)}" for name, size in known.items()
            )
            self.report(message, clause.span, f"write `tile({shown})`")
            return None
        if not self.is_permutation(clause, names, tuple(known)):
            return None
        sizes: dict[str, int] = {}
        for name, argument in zip(names, clause.arguments, strict=True):
            size = constant_of(argument.value, self.env, self.found)
            if size is None:
                return None
            if not 1 <= size <= known[name.text]:
                most = known[name.text]
                message = f"axis `{name.text}` has {most} tokens: a tile of {size}"
                self.report(message + " does not fit", argument.span)
                return None
            sizes[name.text] = size
        return TileOrder(tuple(sizes[name] for name in known))

    def phase(self, clause: ast.Order) -> TokenOrder | None:
        """`phase(4)`: by position % 4."""
        value = self.only_argument(clause, "phase(4)")
        stride = None if value is None else constant_of(value, self.env, self.found)
        if value is None or stride is None:
            return None
        if not 1 <= stride <= POSITION:
            message = f"a stride lies between 1 and {POSITION}, not {stride}"
            self.report(message, value.span)
            return None
        return PhaseOrder(stride)

    def curve(self, clause: ast.Order, segment: Segment | None) -> TokenOrder | None:
        """`curve(hilbert)` or `curve(morton)`, over the axes of the segment."""
        value = self.only_argument(clause, "curve(hilbert)")
        if value is None or self.known_axes(clause, segment) is None:
            return None
        names = [kind.value for kind in CurveKind]
        if isinstance(value, ast.Name) and value.text in names:
            return CurveOrder(CurveKind(value.text))
        help_text = "there are `hilbert` and `morton`"
        self.report(f"`{value.span.text}` is no curve", value.span, help_text)
        return None

    def labels(self, clause: ast.Order) -> TokenOrder | None:
        """`labels(input)`: by an integer for each key."""
        value = self.only_argument(clause, "labels(cluster)")
        if value is None:
            return None
        table = None
        if isinstance(value, ast.Name):
            table = self.env.inputs.get(value.text)
        if table is None:
            message = f"`{value.span.text}` is no input"
        elif not _labels_keys(table):
            message = f"`{table.name}` has not one integer for each key"
        else:
            return LabelOrder(table.name)
        self.report(message, value.span, "declare `input cluster[k] : int`")
        return None

    # --- what the orders share

    def known_axes(
        self, clause: ast.Order, segment: Segment | None
    ) -> dict[str, int] | None:
        """The axes of the segment with their sizes; without any, an error."""
        if segment is not None and segment.axes:
            return dict(segment.axes)
        what = f"segment `{clause.segment.text}`"
        if segment is None:
            what = "the whole sequence"
        message = f"{what} has no axes to order by"
        help_text = "`phase` and `labels` need none"
        self.report(message, clause.segment.span, help_text)
        return None

    def is_permutation(
        self, clause: ast.Order, names: list[ast.Name], known: tuple[str, ...]
    ) -> bool:
        """Whether every axis is named once; reports the first that is not."""
        seen: set[str] = set()
        for name in names:
            if name.text not in known:
                message = f"segment `{clause.segment.text}` has no axis `{name.text}`"
                help_text = ""
                if len(self.found) < DIAGNOSTICS:
                    help_text = did_you_mean(name.text, known)
                self.found.append(
                    Diagnostic("unknown-axis", message, name.span, "", help_text)
                )
                return False
            if name.text in seen:
                self.report(f"axis `{name.text}` is named twice", name.span)
                return False
            seen.add(name.text)
        for name_text in known:
            if name_text not in seen:
                message = f"axis `{name_text}` is missing"
                help_text = "an order names every axis of its segment once"
                self.report(message, clause.kind.span, help_text)
                return False
        return True

    def only_argument(self, clause: ast.Order, example: str) -> ast.Expr | None:
        if len(clause.arguments) == 1 and clause.arguments[0].name is None:
            return clause.arguments[0].value
        message = f"`{clause.kind.text}` takes one argument"
        self.report(message, clause.kind.span, f"write `{example}`")
        return None

    def report(self, message: str, span: Span, help_text: str = "") -> None:
        self.found.append(Diagnostic("bad-order", message, span, "", help_text))


def _labels_keys(table: Input) -> bool:
    """Whether an input has one integer for each key, or for each head and key."""
    axes = [axis for axis in table.axes if axis.kind is not AxisKind.BATCH]
    if axes[:1] == [InputAxis(AxisKind.HEAD)]:
        axes = axes[1:]
    return table.element is Element.INT and axes == [InputAxis(AxisKind.KEY)]


def _by_axes(known: dict[str, int]) -> str:
    return f"axes({', '.join(known)})"
