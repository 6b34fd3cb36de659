"""Which heads a `for` selects, and whether the cases share the heads out.

In: conditions over `h` and `g`. Out: head numbers, and diagnostics that show a head.
Not its job: the masks themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patternc.check import terms
from patternc.check.expand import Environment, Expansion
from patternc.diagnostics import Diagnostic, Label, PatternError
from patternc.ir.evaluate import Point, evaluate
from patternc.ir.nodes import Axis, BoolExpr
from patternc.ir.walk import subexpressions
from patternc.syntax import ast
from patternc.syntax.measure import children

Heads = tuple[int, ...]

HEADS_A_STEP = 16
"""Heads that are looked at for the price of one operation of the budget."""


def selected(
    condition: ast.Expr, env: Environment, found: list[Diagnostic]
) -> Heads | None:
    """The heads of a `for`; None after a mistake, which goes to `found`."""
    env.budget.charge(env.heads // HEADS_A_STEP, condition.span)
    run = Expansion()
    try:
        expr = run.truths(condition, env).expr
    except PatternError as error:
        found.extend(error.diagnostics)
        return None
    before = len(found)
    found.extend(run.found)
    found.extend(_varying(condition, expr))
    if len(found) == before:
        found.extend(_strange_heads(condition, env))
    if len(found) > before:
        return None
    every = np.arange(env.heads, dtype=np.int64)
    chosen = np.broadcast_to(evaluate(expr, Point({Axis.HEAD: every})), every.shape)
    heads = tuple(every[chosen].tolist())
    if not heads:
        message = f"no head satisfies this: there are {env.heads} heads"
        found.append(Diagnostic("no-head", message, condition.span))
        return None
    return heads


def _varying(condition: ast.Expr, expr: BoolExpr) -> list[Diagnostic]:
    """An error if the condition reads more than the head."""
    for node in subexpressions(expr):
        name = terms.varying_name(node)
        if name not in (None, "h"):
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
    masks: Sequence[ast.Mask], env: Environment, found: list[Diagnostic]
) -> list[Heads]:
    """The heads of every mask clause, disjoint and complete, or errors in `found`."""
    every = tuple(range(env.heads))
    owner: dict[int, ast.Mask] = {}
    shares: dict[int, Heads] = {}
    failed = False
    for place, mask in enumerate(masks):
        if mask.otherwise:
            continue
        heads: Heads | None = every
        if mask.condition is not None:
            heads = selected(mask.condition, env, found)
        if heads is None:
            failed = True
            continue
        shares[place] = heads
        for head in heads:
            if head in owner:
                found.append(_overlap(owner[head], mask, head))
                failed = True
                break
            owner[head] = mask
    if failed:
        return []
    rest = tuple(head for head in range(env.heads) if head not in owner)
    last = [place for place, mask in enumerate(masks) if mask.otherwise]
    if len(last) > 1:
        found.append(_two_defaults(masks[last[0]], masks[last[1]]))
        return []
    if last:
        shares[last[0]] = rest
        if not rest:
            message = "no head is left for `otherwise`"
            found.append(Diagnostic("no-head", message, masks[last[0]].span))
    elif rest:
        found.append(_missing(masks, rest[0]))
    return [shares[place] for place in range(len(masks))]


def _two_defaults(first: ast.Mask, second: ast.Mask) -> Diagnostic:
    others = (Label(first.span, "the first one"),)
    message = "`otherwise` is given twice"
    return Diagnostic("case-overlap", message, second.span, others=others)


def _overlap(first: ast.Mask, second: ast.Mask, head: int) -> Diagnostic:
    first_place = first.condition.span if first.condition else first.span
    second_place = second.condition.span if second.condition else second.span
    return Diagnostic(
        "case-overlap",
        f"head {head} has two masks",
        second_place,
        f"head {head} is here too",
        "cases may not overlap",
        (Label(first_place, f"head {head} is here"),),
    )


def _missing(masks: Sequence[ast.Mask], head: int) -> Diagnostic:
    conditions = [mask.condition for mask in masks if mask.condition is not None]
    last = conditions[-1]
    others = tuple(Label(expr.span, "nor here") for expr in conditions[:-1])
    return Diagnostic(
        "case-missing",
        f"head {head} has no mask",
        last.span,
        f"head {head} is not here",
        "add a `mask ... otherwise`",
        others,
    )
