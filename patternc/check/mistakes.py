"""What the type checker says of an expression that is wrong.

In: the expression, and what it has to be. Out: diagnostics with a hint for the commonest
mistakes. Not its job: finding them (`check.types`).
"""

from __future__ import annotations

from patternc.check.kinds import Type
from patternc.diagnostics import Diagnostic, Label
from patternc.source import Span
from patternc.syntax import ast


class Mistakes:
    """The half of a `Typing` that reports; `found` collects what is wrong."""

    found: list[Diagnostic]

    def report_mismatch(self, expr: ast.Expr, wanted: Type, found: Type) -> None:
        """Report that an expression is not what it has to be."""
        if found is Type.MASKS:
            self.report(
                "bad-assert",
                f"{found.value} cannot be a part of an expression",
                expr.span,
                "it stands alone on one side of `within` or `==`",
                "put the other side of `==` in parentheses",
            )
            return
        message = f"expected {wanted.value}, found {found.value}"
        self.report("type", message, expr.span, *_hint(wanted, found))

    def report_misplaced(self, expr: ast.Expr, what: str, where: str) -> None:
        self.report("wrong-place", f"{what} can stand {where} only", expr.span)

    def report_arity(
        self,
        name: ast.Name,
        wanted: str,
        count: int,
        at: Span,
        others: tuple[Label, ...] = (),
    ) -> None:
        plural = "argument" if wanted == "1" else "arguments"
        message = f"`{name.text}` takes {wanted} {plural}, {count} given"
        self.found.append(Diagnostic("arity", message, at, others=others))

    def report(
        self, code: str, message: str, span: Span, label: str = "", help_: str = ""
    ) -> None:
        self.found.append(Diagnostic(code, message, span, label, help_))


def _hint(wanted: Type, found: Type) -> tuple[str, str]:
    """A label and a help sentence for the commonest mistakes."""
    if wanted is Type.PATTERN and found is Type.INTEGER:
        return "a number, not a set of pairs", "compare it with something: `... == 0`"
    if wanted is not Type.PATTERN and found is Type.PATTERN:
        return "a set of pairs, not a number", "combine patterns with `&`, `|` and `~`"
    if found in (Type.SET, Type.RANGE):
        return "", "a set or range stands to the right of `in`"
    if found is Type.DECIMAL:
        return "", "masks, conditions, indices, `//` and `%` have integers only"
    return "", ""
