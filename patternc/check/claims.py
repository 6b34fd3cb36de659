"""Asserts to IR.

In: `assert` clauses that `check.program` accepts. Out: IR assertions. Not its job:
proving them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from patternc.check.cases import ASSERTS, Heads, selected
from patternc.check.environment import Environment
from patternc.check.expand import Expansion
from patternc.check.program import equated_sets
from patternc.check.values import constant_of
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import (
    AssertDensity,
    AssertEveryRow,
    Assertion,
    AssertRetention,
    AssertSets,
    PairSet,
    Quantifier,
    Relation,
)
from patternc.limits import POSITION
from patternc.source import Span
from patternc.syntax import ast


@dataclass(frozen=True, slots=True)
class Claims:
    """Lowers the asserts of one attention; mistakes go to `found`.

    An assert says nothing of `skipped` heads.
    """

    env: Environment
    decimals: Mapping[str, Fraction]
    found: list[Diagnostic]
    skipped: Collection[int]

    def lower(self, clause: ast.Assert) -> Assertion | None:
        """The assertion of a clause, or None after a mistake."""
        heads = self.heads(clause)
        if heads is None:
            return None
        claim, span = clause.claim, clause.span
        match claim:
            case ast.SetClaim():
                return self.sets(claim.relation, claim.lhs, claim.rhs, heads, span)
            case ast.BareClaim():
                sides = equated_sets(claim)
                if sides is None:
                    raise TypeError(f"no sets are compared: {claim}")
                return self.sets(Relation.EQUAL, *sides, heads, span)
            case ast.EveryRowClaim():
                return AssertEveryRow(heads, span)
            case ast.RetentionClaim():
                bound = constant_of(claim.bound, self.env, self.found)
                if bound is None:
                    return None
                return AssertRetention(claim.op, bound, heads, span)
            case ast.DensityClaim():
                return self.density(claim, heads, span)
            case _:
                assert_never(claim)

    def heads(self, clause: ast.Assert) -> Heads | None:
        """The heads that the assert speaks of: those of its `for`, not skipped."""
        if clause.condition is None:
            every = range(self.env.heads)
            return tuple(head for head in every if head not in self.skipped)
        chosen = selected(clause.condition, self.env, self.found, ASSERTS)
        if chosen is None:
            return None
        heads = tuple(head for head in chosen if head not in self.skipped)
        if not heads:
            message = "every head of this assert is skipped"
            self.found.append(Diagnostic("no-head", message, clause.condition.span))
            return None
        return heads

    def sets(
        self,
        relation: Relation,
        lhs: ast.Expr,
        rhs: ast.Expr,
        heads: Heads,
        span: Span,
    ) -> Assertion | None:
        left, right = self.pair_set(lhs), self.pair_set(rhs)
        if left is None or right is None:
            return None
        return AssertSets(relation, left, right, heads, span)

    def pair_set(self, side: ast.Expr) -> PairSet | None:
        match side:
            case ast.TheMask():
                return PairSet(None, Quantifier.EACH_HEAD, side.span)
            case ast.UnionOver():
                return PairSet(None, Quantifier.UNION, side.span)
        run = Expansion()
        try:
            pattern = run.truths(side, self.env).expr
        except PatternError as error:
            self.found.extend(error.diagnostics)
            return None
        self.found.extend(run.found)
        return PairSet(pattern, Quantifier.EACH_HEAD, side.span)

    def density(
        self, claim: ast.DensityClaim, heads: Heads, span: Span
    ) -> Assertion | None:
        bound = self.number(claim.bound)
        length = constant_of(claim.length, self.env, self.found)
        if bound is None or length is None:
            return None
        if not 1 <= length <= POSITION:
            message = f"a length lies between 1 and {POSITION}, not {length}"
            found = Diagnostic("bad-assert", message, claim.length.span)
            self.found.append(found)
            return None
        return AssertDensity(
            claim.op, bound.numerator, bound.denominator, length, heads, span
        )

    def number(self, expr: ast.Expr) -> Fraction | None:
        """A number that is written, or a parameter's."""
        match expr:
            case ast.Decimal():
                return expr.value
            case ast.Name(text=text) if text in self.decimals:
                return self.decimals[text]
        value = constant_of(expr, self.env, self.found)
        return None if value is None else Fraction(value)
