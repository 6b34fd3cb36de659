"""What an expansion may cost, and what it says where it went wrong.

In: each step that `check.expand` takes, and what came out of it. Out: diagnostics, and a
`PatternError` where a mask grows too large. Not its job: the steps themselves.
"""

from __future__ import annotations

from dataclasses import replace

from patternc.check.environment import Environment
from patternc.check.terms import Number, Truths
from patternc.diagnostics import Diagnostic, Label, PatternError
from patternc.ir.nodes import IntOp
from patternc.limits import EXPANSION, EXPANSION_DEPTH, INT_MAX, INT_MIN
from patternc.source import Span
from patternc.syntax import ast


class Limits:
    """The half of an `Expansion` that counts and reports; see there."""

    found: list[Diagnostic]
    nodes: int
    level: int

    def enter(self, span: Span, env: Environment) -> None:
        """One level down; counts every step, so that any expansion ends."""
        env.budget.charge(1, env.called or span)
        self.nodes += 1
        self.level += 1
        if self.nodes > EXPANSION:
            self.stop(f"the mask grows beyond {EXPANSION} operations", span, env)
        if self.level > EXPANSION_DEPTH:
            self.stop(f"the mask is nested over {EXPANSION_DEPTH} levels", span, env)

    def check_size(self, result: Number | Truths, span: Span, env: Environment) -> None:
        """Substituted coordinates make a mask larger than the steps that were made."""
        if result.size > EXPANSION:
            self.stop(f"the mask grows beyond {EXPANSION} operations", span, env)
        if result.depth > EXPANSION_DEPTH:
            self.stop(f"the mask is nested over {EXPANSION_DEPTH} levels", span, env)

    def stop(self, message: str, span: Span, env: Environment) -> None:
        place = env.called or span
        text = "when the patterns that it names are put in place"
        found = Diagnostic("expansion", message, place, text)
        raise PatternError([*self.found, found])

    def within_64_bits(self, value: Number, span: Span, env: Environment) -> Number:
        """Report bounds beyond 64 bits, and go on with what fits."""
        if value.lo >= INT_MIN and value.hi <= INT_MAX:
            return value
        far = value.hi if value.hi > INT_MAX else value.lo
        self.report(
            "overflow",
            "this can leave the range of 64-bit integers",
            span,
            f"as far as {far:.1e}",
            env,
        )
        lo = min(max(value.lo, INT_MIN), INT_MAX)
        hi = min(max(value.hi, INT_MIN), INT_MAX)
        return replace(value, lo=lo, hi=hi)

    def report_zero(
        self, expr: ast.Arithmetic, divisor: Number, env: Environment
    ) -> None:
        what = "remainder by" if expr.op is IntOp.MOD else "division by"
        if divisor.lo == divisor.hi:
            message, label, help_text = f"{what} zero", "this is 0", ""
        else:
            message = f"{what} what may be zero"
            label = f"between {divisor.lo} and {divisor.hi}"
            written = expr.rhs.span.text
            if written.startswith("("):
                written = written[1:-1].strip()
            short = written if len(written) <= 30 else "..."
            help_text = f"write `max({short}, 1)`"
        self.report("zero-division", message, expr.rhs.span, label, env, help_text)

    def report(
        self,
        code: str,
        message: str,
        span: Span,
        label: str,
        env: Environment,
        help_text: str = "",
    ) -> None:
        found = Diagnostic(code, message, span, label, help_text)
        self.found.append(self.placed(found, env))

    def placed(self, found: Diagnostic, env: Environment) -> Diagnostic:
        """A finding with the call that it comes from."""
        if env.called is None:
            return found
        return replace(found, others=(Label(env.called, "in the expansion of this"),))
