"""The clauses of one attention to IR, its parameters bound.

In: an attention of a well-typed file and the environment for one of its heads. Out: an
`ir.Attention`; mistakes go to `found`. Not its job: finding the entry and its parameter
values (`check.lower`), asserts (`check.claims`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from patternc.check.cases import (
    MASKS,
    ORDERS,
    OUTPUTS,
    SCORES,
    SINKS,
    SKIPS,
    WEIGHTS,
    Family,
    Heads,
    Share,
    selected,
    share_out,
)
from patternc.check.claims import Claims
from patternc.check.environment import Environment
from patternc.check.expand import Expansion
from patternc.check.floats import Floats
from patternc.check.inputs import inputs_of, lower_inputs
from patternc.check.layouts import WHOLE, lower_layout, padded
from patternc.check.orders import Orders
from patternc.check.schedules import lower_schedule
from patternc.check.selecting import bind_lets
from patternc.check.selections import selections_parts, with_selections
from patternc.check.values import Binding, constant_of
from patternc.diagnostics import Diagnostic, Label, PatternError
from patternc.ir.floats import discrete_parts
from patternc.ir.nodes import (
    EMPTY_PATTERN,
    FULL_PATTERN,
    All,
    Any,
    AssertSets,
    Attention,
    Axis,
    BoolExpr,
    FloatConst,
    FloatExpr,
    FloatSelect,
    Given,
    GivenValue,
    HeadCase,
    OrderCase,
    OutputCase,
    RuntimeParam,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
    WrittenSchedule,
)
from patternc.ir.walk import axes_of, params_of
from patternc.limits import HEADS
from patternc.source import Span
from patternc.syntax import ast


def lower_clauses(
    item: ast.Attention,
    env: Environment,
    binding: Binding,
    found: list[Diagnostic],
) -> Attention | None:
    """The IR of an attention; None if errors went to `found`."""
    counts = _head_counts(item, env, found)
    if counts is None:
        return None
    heads, kv_heads = counts
    env = replace(env, heads=heads, group_size=heads // kv_heads)
    for clause in item.clauses:
        if isinstance(clause, ast.UseLayout):
            written = env.scope.layouts[clause.name.text]
            env = replace(env, layout=lower_layout(written, env, found))
    env = replace(env, inputs=lower_inputs(inputs_of(item), env, found))
    if any(diagnostic.is_error for diagnostic in found):
        return None  # what follows reads the layout and the inputs
    env = bind_lets(item, env, found)
    if any(diagnostic.is_error for diagnostic in found):
        return None  # masks read the lets
    lowering = _Clauses(item, env, found)
    lowering.skip_heads()
    cases = lowering.masks()
    attention = Attention(
        item.name.text,
        heads,
        kv_heads,
        binding.runtime,
        cases,
        inputs=tuple(env.inputs.values()),
        layout=env.layout,
        orders=lowering.orders(),
        scores=lowering.scores(),
        weights=lowering.weights(),
        sinks=lowering.sinks(),
        outputs=lowering.outputs(),
        skipped=tuple(sorted(lowering.skipped)),
        schedule=lowering.schedule(),
        span=item.span,
    )
    attention = with_selections(attention, env, lowering.or_dense)
    found.extend(_sinks_without_sum(attention))
    claims = Claims(env, binding.decimals, found, lowering.skipped)
    clauses = [clause for clause in item.clauses if isinstance(clause, ast.Assert)]
    asserts = [claims.lower(clause) for clause in clauses]
    if any(diagnostic.is_error for diagnostic in found):
        return None
    proved = tuple(claim for claim in asserts if claim is not None)
    return with_steps(replace(attention, asserts=proved), binding.steps)


@dataclass
class _Clauses:
    """Lowers the clauses of one attention; mistakes go to `found`."""

    item: ast.Attention
    env: Environment
    found: list[Diagnostic]
    skipped: dict[int, ast.Skip] = field(default_factory=dict)
    or_dense: set[int] = field(default_factory=set)
    """The heads whose masks may be dense where that is cheaper."""

    def skip_heads(self) -> None:
        for clause in self.item.clauses:
            if isinstance(clause, ast.Skip):
                heads = selected(clause.condition, self.env, self.found, SKIPS)
                for head in heads or ():
                    self.skipped.setdefault(head, clause)

    def schedule(self) -> WrittenSchedule | None:
        for clause in self.item.clauses:
            if isinstance(clause, ast.ScheduleBlock):
                return lower_schedule(clause, self.env, self.found)
        return None

    def shares(self, clauses: Sequence[ast.Case], family: Family) -> list[Share]:
        return share_out(clauses, family, self.env, self.found, self.skipped)

    def masks(self) -> tuple[HeadCase, ...]:
        """A mask for every head: the union of its cases, each under its condition."""
        clauses = [one for one in self.item.clauses if isinstance(one, ast.Mask)]
        shares = self.shares(clauses, MASKS)
        bodies = [self.mask(clause.body) for clause in clauses]
        cases: list[HeadCase] = []
        for share in shares:
            parts: list[BoolExpr] = []
            for part in share.parts:
                body = bodies[part.place]
                if body is None:
                    return ()
                one = part.condition == FULL_PATTERN
                parts.append(body if one else All((part.condition, body), body.span))
            if all(clauses[part.place].or_dense for part in share.parts):
                self.or_dense.update(share.heads)
            span = clauses[share.parts[0].place].span
            mask = parts[0] if len(parts) == 1 else Any(tuple(parts), span)
            cases.append(HeadCase(share.heads, mask, span))
        if self.skipped:
            first = next(iter(self.skipped.values()))
            heads = tuple(sorted(self.skipped))
            cases.append(HeadCase(heads, EMPTY_PATTERN, first.span))
        return tuple(cases)

    def mask(self, body: ast.Expr) -> BoolExpr | None:
        run = Expansion()
        try:
            mask = padded(run.truths(body, self.env), self.env)
            run.check_size(mask, body.span, self.env)
        except PatternError as error:
            self.found.extend(error.diagnostics)
            return None
        self.found.extend(run.found)
        return mask.expr

    def orders(self) -> tuple[OrderCase, ...]:
        """The orders, disjoint for every segment."""
        clauses = [one for one in self.item.clauses if isinstance(one, ast.Order)]
        lowering = Orders(self.env, self.found)
        lowered = [lowering.lower(clause) for clause in clauses]
        result: list[OrderCase] = []
        places_of: dict[str, list[int]] = {}
        for place, clause in enumerate(clauses):
            places_of.setdefault(clause.segment.text, []).append(place)
        for name, places in places_of.items():
            for share in self.shares([clauses[place] for place in places], ORDERS):
                place = places[share.parts[0].place]
                order, segment = lowered[place], None if name == WHOLE else name
                if order is not None:
                    span = clauses[place].span
                    result.append(OrderCase(share.heads, segment, order, span))
        self.found.extend(_whole_and_part(result))
        return tuple(result)

    def scores(self) -> tuple[ScoreCase, ...]:
        clauses = [one for one in self.item.clauses if isinstance(one, ast.Score)]
        return tuple(
            ScoreCase(heads, expr, span)
            for heads, expr, span in self.floats(clauses, SCORES, Given.SCORE)
        )

    def outputs(self) -> tuple[OutputCase, ...]:
        clauses = [one for one in self.item.clauses if isinstance(one, ast.Output)]
        return tuple(
            OutputCase(heads, expr, span)
            for heads, expr, span in self.floats(
                clauses, OUTPUTS, Given.OUTPUT, (Axis.KEY,)
            )
        )

    def sinks(self) -> tuple[SinkCase, ...]:
        clauses = [one for one in self.item.clauses if isinstance(one, ast.Sink)]
        return tuple(
            SinkCase(heads, expr, span)
            for heads, expr, span in self.floats(
                clauses, SINKS, Given.SCORE, (Axis.QUERY, Axis.KEY)
            )
        )

    def floats(
        self,
        clauses: Sequence[ast.Score | ast.Output | ast.Sink],
        family: Family,
        plain: Given,
        hidden: tuple[Axis, ...] = (),
    ) -> list[tuple[Heads, FloatExpr, Span]]:
        """For the heads of every share the number, `plain` where no case holds."""
        shares = self.shares(clauses, family)
        bodies = [self.number(clause.body, hidden) for clause in clauses]
        result: list[tuple[Heads, FloatExpr, Span]] = []
        for share in shares:
            expr: FloatExpr = GivenValue(plain)
            for part in reversed(share.parts):
                body = bodies[part.place]
                if body is None:
                    return []
                if part.condition == FULL_PATTERN:
                    expr = body
                else:
                    expr = FloatSelect(part.condition, body, expr, body.span)
            span = clauses[share.parts[0].place].span
            result.append((share.heads, expr, span))
        return result

    def number(self, body: ast.Expr, hidden: tuple[Axis, ...]) -> FloatExpr | None:
        """A floating expression that reads none of the `hidden` axes."""
        floats = Floats(self.env)
        try:
            expr = floats.lower(body).expr
        except PatternError as error:
            self.found.extend(error.diagnostics)
            return None
        self.found.extend(floats.run.found)
        read = [axis for part in discrete_parts(expr) for axis in axes_of(part)]
        for axis in hidden:
            if axis in read:
                message = f"this reads `{axis.value}`, which there is not here"
                self.found.append(Diagnostic("wrong-place", message, body.span))
                return None
        return expr

    def weights(self) -> tuple[WeightCase, ...]:
        clauses = [one for one in self.item.clauses if isinstance(one, ast.Weights)]
        shares = self.shares(clauses, WEIGHTS)
        cases: list[WeightCase] = []
        arguments = [self.weight_argument(clause) for clause in clauses]
        for share in shares:
            clause = clauses[share.parts[0].place]
            argument = arguments[share.parts[0].place]
            if argument is not None:
                kind = WeightKind(clause.kind.text)
                cases.append(WeightCase(share.heads, kind, argument, clause.span))
        return tuple(cases)

    def weight_argument(self, clause: ast.Weights) -> float | None:
        """The factor or bias: 0 where none is written."""
        if clause.argument is None:
            return 0.0
        expr = self.number(clause.argument, ())
        if expr is None:
            return None
        if not isinstance(expr, FloatConst):
            message = f"`{clause.argument.span.text}` is not a constant"
            self.found.append(Diagnostic("not-constant", message, clause.argument.span))
            return None
        return expr.value


def _whole_and_part(orders: Sequence[OrderCase]) -> Iterator[Diagnostic]:
    """An error if a head has an order of the whole sequence and one of a segment."""
    whole = {
        head: order for order in orders if order.segment is None for head in order.heads
    }
    for order in orders:
        head = next((head for head in order.heads if head in whole), None)
        if order.segment is not None and head is not None:
            message = f"head {head} has an order of `{WHOLE}` and one of a segment"
            label = f"head {head} is here too"
            others = (Label(whole[head].span, f"head {head} is here"),)
            yield Diagnostic("case-overlap", message, order.span, label, "", others)
            return


def _sinks_without_sum(attention: Attention) -> Iterator[Diagnostic]:
    """An error for each sink of a head whose weights are divided by no sum."""
    without = {
        head: case
        for case in attention.weights
        if case.kind is not WeightKind.SOFTMAX
        for head in case.heads
    }
    for sink in attention.sinks:
        head = next((head for head in sink.heads if head in without), None)
        if head is None:
            continue
        weights = without[head]
        message = f"head {head} has a sink, and its weights have no sum to join"
        label = f"the sink of head {head}"
        why = f"`{weights.kind.value}` is divided by no sum"
        help_text = "leave the sink out for these heads, or use softmax weights"
        others = (Label(weights.span, why),)
        yield Diagnostic(
            "sink-without-sum", message, sink.span, label, help_text, others
        )


def with_steps(attention: Attention, steps: Iterable[RuntimeParam]) -> Attention:
    """The attention with those of `layer` and `step` as parameters that it reads."""
    read: set[str] = set()
    for case in attention.cases:
        read |= params_of(case.mask)
    floats, discrete = selections_parts(attention.selections)
    for part in discrete:
        read |= params_of(part)
    floats += [case.score for case in attention.scores]
    floats += [case.logit for case in attention.sinks]
    floats += [case.output for case in attention.outputs]
    for expr in floats:
        for part in discrete_parts(expr):
            read |= params_of(part)
    for claim in attention.asserts:
        if isinstance(claim, AssertSets):
            for side in (claim.lhs.pattern, claim.rhs.pattern):
                read |= frozenset() if side is None else params_of(side)
    used = tuple(step for step in steps if step.name in read)
    return replace(attention, params=(*attention.params, *used))


def _head_counts(
    item: ast.Attention, env: Environment, found: list[Diagnostic]
) -> tuple[int, int] | None:
    """Query heads and key/value heads, or None after a mistake."""
    clause = next(c for c in item.clauses if isinstance(c, ast.Heads))
    heads = _count(clause.count, "heads", env, found)
    if clause.kv_count is None:
        return None if heads is None else (heads, heads)
    kv_heads = _count(clause.kv_count, "key/value heads", env, found)
    if heads is None or kv_heads is None:
        return None
    if heads % kv_heads != 0:
        message = f"{heads} heads cannot share {kv_heads} key/value heads evenly"
        span: Span = clause.kv_count.span
        label = f"{heads} is not a multiple of {kv_heads}"
        found.append(Diagnostic("heads", message, span, label))
        return None
    return heads, kv_heads


def _count(
    expr: ast.Expr, what: str, env: Environment, found: list[Diagnostic]
) -> int | None:
    count = constant_of(expr, env, found)
    if count is not None and not 1 <= count <= HEADS:
        message = f"{count} {what}: there can be 1 to {HEADS}"
        found.append(Diagnostic("heads", message, expr.span))
        return None
    return count
