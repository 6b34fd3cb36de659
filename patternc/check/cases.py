"""Which heads a `for` selects, and how the cases of a clause share the heads out.

In: conditions over `h`, `g` and, for some clauses, `layer` and `step`. Out: the heads
of every case, and diagnostics that show a head. Not its job: what the cases say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from patternc.check import terms
from patternc.check.environment import Environment
from patternc.check.expand import Expansion
from patternc.check.steps import Undecided, example, shown
from patternc.diagnostics import Diagnostic, Label, PatternError
from patternc.ir.evaluate import Point, evaluate
from patternc.ir.fold import fold_bool
from patternc.ir.nodes import (
    EMPTY_PATTERN,
    FULL_PATTERN,
    STEPS,
    All,
    Any,
    Axis,
    BoolExpr,
    Const,
    Not,
)
from patternc.ir.walk import params_of, subexpressions, substitute
from patternc.syntax import ast
from patternc.syntax.measure import children

Heads = tuple[int, ...]

HEADS_A_STEP = 16
"""Heads that are looked at for the price of one operation of the budget."""

UNDECIDED = "?"
"""In place of a layer and a step, after a finding that says why."""

SET_COST = 100
"""Operations of the budget for one question about layers and steps."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of clause that comes in cases."""

    one: str
    one_of: str
    many: str
    complete: bool = False  # every head must have one
    steps: bool = False  # conditions may read `layer` and `step`
    instead: str = ""  # what to write where they may not


MASKS = Family("mask", "a mask", "masks", complete=True, steps=True)
ORDERS = Family(
    "order",
    "an order",
    "orders",
    instead="an order changes no result: give one that serves all layers and steps",
)
SCORES = Family("score", "a score", "scores", steps=True)
WEIGHTS = Family(
    "weights",
    "a kind of weights",
    "kinds of weights",
    instead="write an attention for each kind of weights",
)
SINKS = Family(
    "sink",
    "a sink",
    "sinks",
    instead="write one sink whose value differs: `sink where(layer == 0, x, y)`",
)
OUTPUTS = Family("output", "an output", "outputs", steps=True)
SKIPS = Family(
    "skip",
    "a skip",
    "skips",
    instead="mask the head there: `mask empty for h == 2 & layer == 0`",
)
ASSERTS = Family(
    "assert",
    "an assert",
    "asserts",
    instead="an assert holds at all layers and steps: put the condition in its sets",
)


@dataclass(frozen=True, slots=True)
class Part:
    """A clause, by its place in the list, and when it holds for the heads of a share."""

    place: int
    condition: BoolExpr


@dataclass(frozen=True, slots=True)
class Share:
    """Heads that have the same clauses under the same conditions."""

    heads: Heads
    parts: tuple[Part, ...]


def selected(
    condition: ast.Expr, env: Environment, found: list[Diagnostic], family: Family
) -> Heads | None:
    """The heads of a `for`; None after a mistake, which goes to `found`."""
    env.budget.charge(env.heads // HEADS_A_STEP, condition.span)
    chosen = _conditions(condition, env, found, family)
    return None if chosen is None else tuple(chosen)


def _conditions(
    condition: ast.Expr, env: Environment, found: list[Diagnostic], family: Family
) -> dict[int, BoolExpr] | None:
    """For the heads that a `for` can select: when it does. None after a mistake."""
    run = Expansion()
    try:
        truths = run.truths(condition, env)
    except PatternError as error:
        found.extend(error.diagnostics)
        return None
    expr, before = truths.expr, len(found)
    found.extend(run.found)
    found.extend(_varying(condition, expr, family))
    if len(found) == before:
        found.extend(_strange_heads(condition, env))
    if len(found) > before:
        return None
    every = np.arange(env.heads, dtype=np.int64)
    if params_of(expr):
        env.budget.charge(env.heads * truths.size // HEADS_A_STEP, condition.span)
        chosen = {head: _for_head(expr, head) for head in range(env.heads)}
        chosen = {h: when for h, when in chosen.items() if when != EMPTY_PATTERN}
    else:
        holds = evaluate(expr, Point({Axis.HEAD: every}))
        heads = every[np.broadcast_to(holds, every.shape)]
        chosen = dict.fromkeys(heads.tolist(), FULL_PATTERN)
    if not chosen:
        message = f"no head satisfies this: there are {env.heads} heads"
        found.append(Diagnostic("no-head", message, condition.span))
        return None
    return chosen


def _for_head(expr: BoolExpr, head: int) -> BoolExpr:
    return fold_bool(substitute(expr, {Axis.HEAD: Const(head)}))


def _varying(condition: ast.Expr, expr: BoolExpr, family: Family) -> list[Diagnostic]:
    """An error if the condition reads more than the head, or the step if it may."""
    for node in subexpressions(expr):
        name = terms.varying_name(node)
        if name in (None, "h") or (family.steps and name in STEPS):
            continue
        if name in STEPS:
            message = (
                "only `mask`, `score` and `output` have cases over `layer`, `step`"
            )
            help_text = family.instead
            return [Diagnostic("unsupported", message, condition.span, "", help_text)]
        message = "a `for` speaks of heads: `h`, `g` and constants"
        label = f"`{name}` is known only when a kernel runs"
        return [Diagnostic("not-constant", message, condition.span, label)]
    return []


def _strange_heads(condition: ast.Expr, env: Environment) -> list[Diagnostic]:
    """Errors for numbers beside `h` or `g` that no head has."""
    found: list[Diagnostic] = []
    pending = [condition]
    while pending:
        expr = pending.pop()
        match expr:
            case ast.Chain(first=ast.Name(text="h" | "g")):
                found.extend(_strange_links(expr, env))
        pending.extend(children(expr))
    return found


def _strange_links(chain: ast.Chain, env: Environment) -> list[Diagnostic]:
    first = chain.first
    if not isinstance(first, ast.Name):
        return []
    count = env.heads if first.text == "h" else env.heads // env.group_size
    link = chain.links[0]
    wanted: list[tuple[ast.Expr, int]] = []  # an expression and the greatest value
    match link.operand:
        case ast.SetOf() as group if link.op is None:
            wanted = [(item, count - 1) for item in group.items]
        case ast.Call(name=ast.Name(text="range"), arguments=(start, end)):
            wanted = [(start, count), (end, count)]
    what = "query" if first.text == "h" else "key/value"
    found = []
    for expr, greatest in wanted:
        number = Expansion().number(expr, env)
        if not 0 <= number.lo <= number.hi <= greatest and number.lo == number.hi:
            message = f"there is no {what} head {number.lo}: there are {count}"
            label = f"`{first.text}` goes from 0 to {count - 1}"
            found.append(Diagnostic("head-range", message, expr.span, label))
    return found


def share_out(
    clauses: Sequence[ast.Case],
    family: Family,
    env: Environment,
    found: list[Diagnostic],
    skipped: dict[int, ast.Skip],
) -> list[Share]:
    """The heads of the clauses, in the order of the clauses; errors go to `found`.

    Disjoint, and complete if the family is, but for the `skipped` heads.
    """
    if not clauses:
        return []
    sharing = _Sharing(clauses, family, env, found)
    failed = len(found)
    for place, clause in enumerate(clauses):
        if not clause.otherwise:
            sharing.add(place, clause, skipped)
    if len(found) > failed:
        return []
    sharing.add_rest(skipped)
    return [] if len(found) > failed else sharing.shares()


@dataclass
class _Sharing:
    """What every head has been given so far."""

    clauses: Sequence[ast.Case]
    family: Family
    env: Environment
    found: list[Diagnostic]
    owners: dict[int, list[Part]] = field(default_factory=dict)
    known: dict[BoolExpr, str | None] = field(default_factory=dict)

    def add(self, place: int, clause: ast.Case, skipped: dict[int, ast.Skip]) -> None:
        """Give a clause to the heads of its condition; reports the first overlap."""
        self.env.budget.charge(self.env.heads // HEADS_A_STEP, clause.span)
        chosen: dict[int, BoolExpr] | None
        chosen = dict.fromkeys(range(self.env.heads), FULL_PATTERN)
        if clause.condition is not None:
            chosen = _conditions(clause.condition, self.env, self.found, self.family)
        parts: dict[
            BoolExpr, Part
        ] = {}  # one object for each, so that `shares` is fast
        for head, condition in (chosen or {}).items():
            if head in skipped:
                self.found.append(self.skipped_overlap(skipped[head], clause, head))
                return
            for part in self.owners.get(head, ()):
                both = self.together(part.condition, condition, clause)
                if both is None:
                    continue
                if both != UNDECIDED:
                    first = self.clauses[part.place]
                    self.found.append(self.overlap(first, clause, head, both))
                return
            own = parts.setdefault(condition, Part(place, condition))
            self.owners.setdefault(head, []).append(own)

    def together(self, a: BoolExpr, b: BoolExpr, clause: ast.Case) -> str | None:
        """When two conditions hold together: "", or a layer and step; None if never."""
        if a == b == FULL_PATTERN:
            return ""
        return self.when(fold_bool(All((a, b))), clause)

    def when(self, condition: BoolExpr, clause: ast.Case) -> str | None:
        """A layer and a step at which it holds, in words; None if there are none."""
        if condition in self.known:
            return self.known[condition]
        self.env.budget.charge(SET_COST, clause.span)
        self.known[condition] = found = self.decided(condition, clause)
        return found

    def decided(self, condition: BoolExpr, clause: ast.Case) -> str | None:
        try:
            at = example(condition)
        except Undecided:
            message = f"which of these {self.family.many} hold cannot be decided"
            label = "only sums, multiples, `//` and `%` of `layer` and `step` can"
            self.found.append(Diagnostic("unsupported", message, clause.span, label))
            return UNDECIDED
        return None if at is None else shown(at, condition)

    def add_rest(self, skipped: dict[int, ast.Skip]) -> None:
        """Give what is left to `otherwise`; reports a head with nothing."""
        last = [place for place, one in enumerate(self.clauses) if one.otherwise]
        if len(last) > 1:
            first, second = (self.clauses[place] for place in last[:2])
            others = (Label(first.span, "the first one"),)
            message = "`otherwise` is given twice"
            self.found.append(
                Diagnostic("case-overlap", message, second.span, others=others)
            )
            return
        self.env.budget.charge(self.env.heads // HEADS_A_STEP, self.clauses[0].span)
        left = False
        parts: dict[BoolExpr, Part] = {}
        for head in range(self.env.heads):
            if head in skipped:
                continue
            if not last and not self.family.complete:
                break
            rest = self.rest_of(head)
            if rest == EMPTY_PATTERN:
                continue
            when = "" if rest == FULL_PATTERN else self.when(rest, self.clauses[-1])
            if when is None:
                continue  # the cases leave nothing out
            left = True
            if when == UNDECIDED:
                return
            if not last:
                self.found.append(self.missing(head, when))
                return
            own = parts.setdefault(rest, Part(last[0], rest))
            self.owners.setdefault(head, []).append(own)
        if last and not left:
            message = "no head is left for `otherwise`"
            span = self.clauses[last[0]].span
            self.found.append(Diagnostic("no-head", message, span))

    def rest_of(self, head: int) -> BoolExpr:
        """When a head has nothing yet."""
        parts = self.owners.get(head, [])
        if any(part.condition == FULL_PATTERN for part in parts):
            return EMPTY_PATTERN
        if not parts:
            return FULL_PATTERN
        return Not(Any(tuple(part.condition for part in parts)))

    def shares(self) -> list[Share]:
        """Heads with the same parts together, in the order of the clauses."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for head in sorted(self.owners):
            groups.setdefault(tuple(map(id, self.owners[head])), []).append(head)
        found = [
            Share(tuple(heads), tuple(self.owners[heads[0]]))
            for heads in groups.values()
        ]
        return sorted(found, key=lambda share: (share.parts[0].place, share.heads[0]))

    # --- findings

    def overlap(
        self, first: ast.Case, second: ast.Case, head: int, when: str
    ) -> Diagnostic:
        first_place = first.condition.span if first.condition else first.span
        second_place = second.condition.span if second.condition else second.span
        return Diagnostic(
            "case-overlap",
            f"head {head} has two {self.family.many}" + (f" at {when}" if when else ""),
            second_place,
            f"head {head} is here too",
            "cases may not overlap",
            (Label(first_place, f"head {head} is here"),),
        )

    def skipped_overlap(
        self, skip: ast.Skip, clause: ast.Case, head: int
    ) -> Diagnostic:
        return Diagnostic(
            "case-overlap",
            f"head {head} is skipped and has {self.family.one_of}",
            clause.condition.span if clause.condition else clause.span,
            f"head {head} is here too",
            "write `otherwise` for the heads that are left",
            (Label(skip.condition.span, f"head {head} is skipped here"),),
        )

    def missing(self, head: int, when: str) -> Diagnostic:
        conditions = [one.condition for one in self.clauses if one.condition]
        at = f" at {when}" if when else ""
        others = tuple(Label(expr.span, "nor here") for expr in conditions[:-1])
        return Diagnostic(
            "case-missing",
            f"head {head} has no {self.family.one}{at}",
            conditions[-1].span,
            f"head {head} is not here" if not when else f"not at {when}",
            f"add a `{self.family.one} ... otherwise`",
            others,
        )
