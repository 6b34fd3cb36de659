"""Whether a call is computed without choosing keys: `else dense when cheaper`.

In: the facts of a package, the sizes of a call. Out: the decision, as `patternc.load`
makes it on the same sizes: from numbers of the host, nothing waits for a device. Not its
job: the arithmetic of times (`prices`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .choosing import Amount, ChoosingFacts, Live, MaskCase, Scored
from .formula import Formula
from .manifest import Manifest
from .prices import (
    KEYS,
    ROWS,
    SAMPLES,
    SHORT,
    CaseShare,
    chosen_share,
    counted,
    is_dense_cheaper,
    reached_share,
    scope_of,
)
from .steps import evaluate
from .tensors import Value, tensor_value

MOST_DECIDED = 4096
"""Sizes of calls that are remembered; all are forgotten when they are more."""

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class CallSizes:
    """The sizes of a call; `values` are run-time parameters, 0 for those of a plan."""

    n_q: int
    n_k: int
    q_offset: int
    head_dim: int
    values: Mapping[str, int]

    @property
    def names(self) -> dict[str, int]:
        """Its numbers by the names of formulas."""
        last = self.q_offset + self.n_q - 1
        own = {"q_offset": self.q_offset, "last": last, "n_k": self.n_k, "h": 0}
        return own | {f"p_{name}": value for name, value in self.values.items()}


class Decisions:
    """The decisions of one package, each made once; several threads may ask."""

    def __init__(self, manifest: Manifest) -> None:
        self._facts, self._other = manifest.facts, manifest.alternative
        plan = manifest.facts.plan
        self.params: dict[str, int | None] = {} if plan is None else dict(plan.params)
        """The run-time parameters that choose, and what they are unless given."""
        self._found: dict[tuple[object, ...], bool] = {}

    def found(
        self,
        n_q: int,
        n_k: int,
        q_offset: int,
        head_dim: int,
        params: Mapping[str, int],
    ) -> bool:
        """Whether a call of these sizes is computed without choosing."""
        if self._other is None:
            return False
        every = {**dict.fromkeys(self._facts.params, 0), **self.params, **params}
        values = {name: x for name, x in every.items() if x is not None}
        key = (n_q, n_k, q_offset, head_dim, *values.values())
        found = self._found.get(key)
        if found is None:
            call = CallSizes(n_q, n_k, q_offset, head_dim, values)
            found = is_dense(self._other.choosing, self._facts.heads, call)
            if len(self._found) >= MOST_DECIDED:
                self._found.clear()
            self._found[key] = found
        return found


def is_dense(facts: ChoosingFacts, heads: int, call: CallSizes) -> bool:
    """Whether choosing does not clearly pay for a call of `heads` heads."""
    if call.n_q * call.n_k == 0:
        return True
    return is_dense_cheaper(*milliseconds(facts, heads, call))


def milliseconds(
    facts: ChoosingFacts, heads: int, call: CallSizes
) -> tuple[float, float, float]:
    """The plan, attention, and a dense call of `heads` heads; of no empty call."""
    names = call.names
    seen: dict[str, float] = {}
    apart: dict[str, float] = {}
    ranked = alone = 0.0
    for at, table in enumerate(facts.tables):
        sizes = [evaluate(size, names) for size in table.sizes]
        entries = float(prod(sizes))
        is_alone = len(table.scope) == len(sizes)
        ranked, alone = (
            (ranked, alone + entries) if is_alone else (ranked + entries, alone)
        )
        scope = scope_of([sizes[place] for place in table.scope], call.n_k)
        amounts = (table.amount, table.least, table.most)
        share = chosen_share(scope, *(_number(amount, names) for amount in amounts))
        is_by_token = any(size >= call.n_k for size in sizes)
        seen[f"drawn_{at}"] = share
        apart[f"drawn_{at}"] = reached_share(share, is_by_token)
    cases = [
        CaseShare(x.kind, x.heads, _density(x, call, seen), _density(x, call, apart))
        for x in facts.cases
    ]
    dense = sum(x.heads * _density(x, call, {}) for x in facts.dense) / heads
    scored = _scored(facts.scored, call)
    estimate = (scored * heads, ranked * heads, alone * heads)
    work = counted(cases, heads, float(call.n_q) * call.n_k, dense, estimate)
    return work.milliseconds(facts.times, call.n_k <= SHORT, call.head_dim)


def _number(amount: Amount, names: Mapping[str, int]) -> float | None:
    return float(evaluate(amount, names)) if isinstance(amount, Formula) else amount


def _density(case: MaskCase, call: CallSizes, shares: Mapping[str, float]) -> float:
    """The share of visible pairs, at some of them, with keys chosen by chance."""
    q = _spread(call.n_q, ROWS)[:, None] + call.q_offset
    k = _spread(call.n_k, KEYS)[None]
    names: dict[str, Value] = {**call.names, "q": q, "k": k, "h": case.head}
    for at, (name, share) in enumerate(shares.items()):
        if name in case.mask.tokens:
            names[name] = _draws(at, len(q) * k.shape[1]).view(len(q), -1) < share
    return _mean(tensor_value(case.mask, names))


def _scored(every: tuple[Scored, ...], call: CallSizes) -> float:
    """Entries that are computed, each once."""
    names, total = call.names, 0.0
    found: set[tuple[float, int]] = set()
    for one in every:
        if one.sizes:
            total += float(prod(evaluate(size, names) for size in one.sizes))
            continue
        pairs = float(call.n_q) * call.n_k
        for live in one.lives:
            pairs = min(pairs, _live_pairs(live, call))
        if (pairs, one.node) not in found:
            found.add((pairs, one.node))
            total += pairs
    return total


def _live_pairs(live: Live, call: CallSizes) -> float:
    """Of all pairs those for which a condition holds: a probe's rows, or a sample."""
    names = call.names
    if live.first is not None:
        least = evaluate(live.first, names)
        rows = float(min(max(call.q_offset + call.n_q - least, 1), call.n_q))
        if rows < call.n_q:
            return rows * call.n_k
    pairs = float(call.n_q) * call.n_k
    if live.condition is None:
        return pairs
    keys = [
        (_draws(at, SAMPLES) * size).to(torch.int64)
        for at, size in enumerate((call.n_q, call.n_k))
    ]
    own = {"e_0": keys[0] + call.q_offset, "e_1": keys[1]}
    return pairs * _mean(tensor_value(live.condition, {**names, **own}))


def _mean(seen: Value) -> float:
    if not isinstance(seen, Tensor):
        return float(bool(seen))
    return int(seen.sum()) / seen.numel()


def _spread(size: int, most: int) -> Tensor:
    """Some of the numbers below `size`, the first and the last among them."""
    count = min(most, size)
    return torch.arange(count, device=_CPU) * (size - 1) // max(count - 1, 1)


def _draws(stream: int, count: int) -> Tensor:
    """Numbers in [0, 1) that look drawn, float64: those of `plan.choosing_work`.

    Products keep their low 32 bits, though int64 overflows.
    """
    mask = (1 << 32) - 1
    x = torch.arange(count, device=_CPU) + (stream << 24)
    x = x * 0x9E3779B1 & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ x >> shift) * factor & mask
    x = x ^ x >> 16
    return x.to(torch.float64) / 2.0**32
