"""Which keys a call chooses, by the steps of a package.

In: the plan of a manifest, and the host code that stands for the program. Out: what makes
the tables of a call, exactly as the `select` of a generated module. Not its job: kernels
and how they are started (`host`), checking a call.

Nothing waits for the device, no shape depends on data.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .data import PlanFacts, PlanSelection, PlanStep, Side
from .floats import FUNCTIONS
from .formula import Formula
from .steps import evaluate
from .tensors import tensor_value

Pair = tuple[Tensor, Tensor]
"""The numbers of a map, and which of its entries are live."""

_SIGNS: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}

_COMPARED: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(slots=True)
class Selecting:
    """One call: its tensors, its numbers by the names of formulas, probes so far."""

    host: Any
    plan: PlanFacts
    q: Tensor
    k: Tensor
    scale: float
    names: Mapping[str, int]
    probes: dict[int, Any] = field(default_factory=dict)


def select_keys(
    host: Any,
    plan: PlanFacts,
    q: Tensor,
    k: Tensor,
    scale: float,
    q_offset: int,
    values: Mapping[str, int],
) -> dict[str, Any]:
    """The table of each selection and the first values of its keys, by name.

    `q` is [B, H, n_q, D] and `k` [B, KV, n_k, D], neither without rows; `values` are
    the run-time parameters of the plan.
    """
    names = {
        "q_offset": q_offset,
        "last": q_offset + q.shape[2] - 1,
        "n_k": k.shape[2],
        **{f"p_{name}": value for name, value in values.items()},
    }
    call = Selecting(host, plan, q, k, scale, names)
    found: dict[str, Any] = {}
    for own in plan.selections:
        ends = [evaluate(end, names) for end in own.ends]
        ranges = list(zip(ends[::2], ends[1::2], strict=True))
        table = _table(call, own, ranges)
        edges: list[int] = []
        for move in reversed(own.moves):
            edges += [evaluate(move, names), 0]
        found[own.table] = pad(table, edges) if any(edges) else table
        firsts = zip(own.firsts, ranges, strict=True)
        found |= {name: low for name, (low, _) in firsts if name}
    return found


def _table(
    call: Selecting, own: PlanSelection, ranges: list[tuple[int, int]]
) -> Tensor:
    """What is chosen, bool [B, H, ...] with all values of each key."""
    made = [_whole(call, step, ranges) for step in own.steps]
    (first, last), count = ranges[0], len(ranges)
    axis, q = call.host.axis, call.q
    keys: dict[str, Tensor] = {}
    if count == 2:
        keys["e_1"] = axis(q, ranges[1][0], ranges[1][1] + 1, 1, 2)
    if not own.by_rows:
        keys["e_0"] = axis(q, first, last + 1, 0, count)
        return _chosen(call, own, made, keys, None)
    sizes = [high - low + 1 for low, high in ranges]
    table = q.new_empty((*q.shape[:2], *sizes), dtype=torch.bool)
    for low, high in call.host.runs(q, sizes[1], sizes[0]):
        keys["e_0"] = axis(q, first + low, first + high, 0, 2)
        table[:, :, low:high] = _chosen(call, own, made, keys, (low, high))
    return table


def _whole(call: Selecting, step: PlanStep, ranges: list[tuple[int, int]]) -> Any:
    """What a step needs of all rows: sums and their live groups, or pooled Q and K."""
    host, q, k = call.host, call.q, call.k
    if step.kind == "sums":
        joins = "sum" if step.how == "mean" else step.how
        sums = _probe(call, step.probe).summed(joins, step.by, *step.sizes)
        return host.spread_groups(step.how, sums, ranges, step.heads)
    if step.kind == "blocks":
        rows = host.pool(q, step.how, step.sizes[0], call.names["q_offset"])
        columns = host.pool(k, step.by, step.sizes[1], 0)
        return rows, columns.repeat_interleave(q.shape[1] // k.shape[1], 1)
    if step.kind == "rows":
        columns = host.pool(k, step.by, step.sizes[0], 0)
        return columns.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return None


def _probe(call: Selecting, at: int) -> Any:
    """A probe by its number; its rows are summed once for all that asks."""
    if at not in call.probes:
        own, names = call.plan.probes[at], call.names
        call.probes[at] = call.host.Probe(
            call.host.MAPS[at],
            call.q,
            call.k,
            call.scale if own.times == 1 else call.scale * own.times,
            names["q_offset"],
            evaluate(own.first, names),
            evaluate(own.end, names),
            tuple(names[f"p_{name}"] for name in own.params),
            own.is_softmax,
            own.stride,
            own.residue,
        )
    return call.probes[at]


def _chosen(
    call: Selecting,
    own: PlanSelection,
    made: list[Any],
    keys: Mapping[str, Tensor],
    rows: tuple[int, int] | None,
) -> Tensor:
    """What is chosen of all rows, or of some."""
    pairs: list[Pair] = []
    for step, whole in zip(own.steps, made, strict=True):
        pairs.append(_step(call, step, whole, pairs, keys, rows))
    numbers, live = pairs[-1]
    held: Any = False
    if own.always is not None:
        held = _held(call, own.always, keys)
    always = live & held
    if own.choice in _COMPARED:
        compared: Tensor = live & _COMPARED[own.choice](numbers, own.share) | always
        return compared
    bounds = [
        None if x is None else evaluate(x, call.names) for x in (own.least, own.most)
    ]
    given = bounds if bounds != [None, None] else []
    is_map = rows is None and len(own.firsts) == 2
    sides = [numbers, live, always]
    if is_map:  # one scope: all entries of a head
        sides = [side.flatten(2) for side in sides]
    host = call.host
    if own.choice == "top_p":
        asked = (own.share, own.keeps_crossing)
        taken = host.chosen(host.choose_top_p, *sides, *asked, *given)
    else:
        assert own.amount is not None
        amount = evaluate(own.amount, call.names)
        taken = host.chosen(host.choose_top, *sides, amount, *given)
    found: Tensor = taken.view(numbers.shape) if is_map else taken
    return found


def _step(
    call: Selecting,
    step: PlanStep,
    whole: Any,
    pairs: list[Pair],
    keys: Mapping[str, Tensor],
    rows: tuple[int, int] | None,
) -> Pair:
    """The numbers and live entries of one step."""
    if step.kind == "sums":
        return _some(whole[0], rows), _some(whole[1], rows)
    if step.kind in ("blocks", "rows"):
        if step.kind == "blocks":
            own, columns = _some(whole[0], rows), whole[1]
        else:
            own, columns = _some(call.q, rows).to(torch.float32), whole
            for word in step.sides:
                own = FUNCTIONS[str(word)](own)
        there = torch.ones_like(keys["e_0"] + keys["e_1"], dtype=torch.bool)
        return own @ columns.mT, there
    if step.kind == "where":
        numbers, live = pairs[step.operand]
        return numbers, live & _held(call, step.condition, keys)
    if step.kind == "joined":
        joined: Pair = call.host.summed_heads(*pairs[step.operand], step.heads)
        return joined
    if step.kind == "softmax":
        numbers, live = pairs[step.operand]
        shares: Tensor = call.host.softmax_of(numbers, live)
        return shares, live
    lives = [pairs[side][1] for side in step.sides if isinstance(side, int)]
    lhs, rhs = (_side(call, side, pairs) for side in step.sides)
    live = lives[0] if len(lives) == 1 else lives[0] & lives[1]
    return _SIGNS[step.kind](lhs, rhs), live


def _some(whole: Tensor, rows: tuple[int, int] | None) -> Tensor:
    return whole if rows is None else whole[:, :, rows[0] : rows[1]]


def _side(call: Selecting, side: Side, pairs: list[Pair]) -> Any:
    if isinstance(side, int):
        return pairs[side][0]
    return call.scale if isinstance(side, str) else side


def _held(call: Selecting, condition: Formula, keys: Mapping[str, Tensor]) -> Any:
    """Whether a condition on keys holds."""
    return tensor_value(condition, {**call.names, **keys})
