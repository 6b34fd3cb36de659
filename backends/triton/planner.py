"""The planning phase on a GPU: maps by kernels that never store them, and choices.

In: a loaded module, its attention, the tensors of a call. Out: the table of each
selection. Not its job: which maps have kernels (`fused`), all other maps and the order
of things (`backends.maps`, `backends.planner`): what has no kernel is computed there.

Nothing waits for the device: a plan can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from patternc.backends.choosing import Candidates, chosen
from patternc.backends.grouping import Groups, join_heads, of_groups
from patternc.backends.key_ranges import KeyRange
from patternc.backends.map_values import Part, Values
from patternc.backends.maps import Estimate
from patternc.backends.planner import known_params, tables_of, wide_inputs
from patternc.backends.probe import live_rows
from patternc.backends.triton.fused import Fused
from patternc.backends.values import compared
from patternc.ir.nodes import Attention
from patternc.ir.selection import (
    Choice,
    Crossing,
    Logits,
    MapExpr,
    Reduce,
    Reduction,
    Rows,
    Selection,
    Tokens,
)

MOST_RANKED = 2**31 - 1
"""Groups of one scope that the search can count."""


def plan_tables(
    module: ModuleType,
    fused: Fused,
    attention: Attention,
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    q_offset: int,
    params: Mapping[str, int],
    inputs: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The table of each selection, bool [B, H, ...]; see `planner.plan_tables`.

    `module` is the generated one of `attention`, `fused` what it has kernels for. Numbers are float32; `q` and `k` are
    read as they are.
    """
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q, k = q.detach(), k.detach()
        call = FusedEstimate(
            attention,
            _shaped_like(q),
            _shaped_like(k),
            scale,
            q_offset,
            known_params(attention, q, k, q_offset, params),
            wide_inputs(inputs, torch.float32),
            module=module,
            fused=fused,
            source_q=q,
            source_k=k,
        )
        tables = tables_of(call, params, call.choose)
        module.note_captured(tables.values(), q.device)
        return tables


def _shaped_like(tensor: Tensor) -> Tensor:
    """float32 of the same shape, without memory: only its shape is looked at."""
    return tensor.new_empty((), dtype=torch.float32).expand(tensor.shape)


@dataclass(kw_only=True)
class FusedEstimate(Estimate):
    """An estimate whose `q` and `k` are shapes; the tensors are `source_q`, `source_k`.

    `probes` holds the maps of scores that were started, by their number, `found_ranges`
    the values of the keys of maps: they are asked for many times.
    """

    module: ModuleType
    fused: Fused
    source_q: Tensor
    source_k: Tensor
    probes: dict[int, Any] = field(default_factory=dict)
    found_ranges: dict[MapExpr, tuple[KeyRange, ...]] = field(default_factory=dict)

    @cached_property
    def wide(self) -> Estimate:
        """The same call with copies of Q and K in float32, for maps without kernels."""
        return Estimate(
            self.attention,
            self.source_q.to(torch.float32),
            self.source_k.to(torch.float32),
            self.scale,
            self.q_offset,
            self.params,
            self.inputs,
        )

    def ranges(self, map_: MapExpr) -> tuple[KeyRange, ...]:
        """The values of each key of a map."""
        if map_ not in self.found_ranges:
            self.found_ranges[map_] = super().ranges(map_)
        return self.found_ranges[map_]

    def compute(self, map_: MapExpr, part: Part | None) -> Values:
        """A map that has a kernel by it; all others as they are defined."""
        match map_:
            case Reduce() if map_ in self.fused.sums:
                return self.summed(map_)
            case Reduce(operand=Rows(tokens=tokens)) if map_ in self.fused.pools:
                return self.pooled(map_, tokens)
            case Rows(tokens=tokens):
                return self.converted(tokens, part)
            case Logits():
                return self.wide.compute(map_, part)
            case _:
                return super().compute(map_, part)

    def converted(self, tokens: Tokens, part: Part | None) -> Values:
        """Some rows of Q or K in float32; those of K for every query head."""
        of_queries = tokens is Tokens.QUERIES
        rows = self.source_q if of_queries else self.source_k
        if part is not None:
            rows = rows[:, :, part[0] : part[1]]
        rows = rows.to(torch.float32)
        if not of_queries:
            rows = rows.repeat_interleave(self.attention.group_size, dim=1)
        return Values(rows, self.all_live(3))

    def probe(self, at: int) -> Any:
        """Map number `at`, the `Probe` of the module, whose rows are summed once."""
        own = self.fused.probes[at]
        rows = self.ranges(own.map_)[0]
        start, stop = live_rows(own.map_, rows, self.sizes.n_k, self.params)
        first = rows.first + start
        if at not in self.probes:
            self.probes[at] = self.module.Probe(
                self.module.MAPS[at],
                self.source_q,
                self.source_k,
                self.scale * own.times,
                self.q_offset,
                first,
                rows.first + stop,
                tuple(self.params[name] for name in own.params),
                own.is_softmax,
                own.stride,
                own.residue,
            )
        return self.probes[at]

    def summed(self, map_: Reduce) -> Values:
        """The sums, means or extremes of the scores of some rows."""
        found = self.fused.sums[map_]
        probe = self.probe(found.probe)
        own = self.ranges(map_)
        shape = (*self.q.shape[:2], *(one.size for one in own))
        if 0 in shape or not probe.rows:
            groups = Groups.empty(map_.how, shape, False, self.q)
        else:
            joins = "sum" if map_.how is Reduction.MEAN else map_.how.value
            sums = probe.summed(joins, found.by.value, *found.sizes)
            values, counts, starts = sums
            neutral = _neutral(map_.how)
            edges: list[int] = []
            for dim, start in reversed(list(enumerate(starts))):
                before = start - own[dim].first
                edges += [before, own[dim].size - before - values.shape[2 + dim]]
            if any(edges):
                values, counts = pad(values, edges, value=neutral), pad(counts, edges)
            groups = Groups(map_.how, False, values, counts)
        numbers, live = of_groups(groups)
        return Values(*join_heads(groups, map_.over, self.attention, numbers, live))

    def pooled(self, map_: Reduce, tokens: Tokens) -> Values:
        """Blocks of the rows of Q or K."""
        size, group = self.fused.pools[map_], self.attention.group_size
        of_queries = tokens is Tokens.QUERIES
        source = self.source_q if of_queries else self.source_k
        offset = self.q_offset if of_queries else 0
        how = map_.how.value
        numbers = self.module.pool(source, how, size, offset)
        counts = self.module.rows_of_blocks(source, size, offset)
        if not of_queries:
            numbers = numbers.repeat_interleave(group, dim=1)
        counts = counts.expand(*numbers.shape[:2], -1)
        totals = numbers * counts.unsqueeze(-1) if how == "mean" else numbers
        groups = Groups(map_.how, True, totals, counts)
        live = self.all_live(3)
        return Values(*join_heads(groups, map_.over, self.attention, numbers, live))

    def choose(self, selection: Selection, given: Candidates) -> Tensor:
        """Which candidates are taken; see `choosing.chosen`."""
        shape = given.numbers.shape
        is_bounded = given.least is not None or given.most is not None
        is_plain = selection.choice is Choice.ABOVE and not is_bounded
        if is_plain or 0 in shape or shape[-1] > MOST_RANKED:
            return chosen(selection, given)
        values = given.numbers.to(torch.float32).reshape(-1, shape[-1]).contiguous()
        classes = _classes(given)
        rows = shape[:-1]
        least, most = (
            None if x is None else _counts(x, rows) for x in (given.least, given.most)
        )
        match selection.choice:
            case Choice.TOP_P:
                share = given.amount.expand(*rows, 1).reshape(-1).double()
                keeps = selection.crossing is Crossing.KEEP
                choose = self.module.choose_top_p
                taken = choose(values, classes, share, keeps, least, most)
            case Choice.TOP | Choice.ABOVE:
                amount = _counts(given.amount, rows)
                if selection.choice is Choice.ABOVE:
                    held = compared(selection.compare, given.numbers, given.amount)
                    held = given.live & held | given.always
                    amount = held.sum(-1, dtype=torch.int32).flatten()
                choose = self.module.choose_top
                taken = choose(values, classes, amount, least, most)
        return taken.view(shape)  # type: ignore[no-any-return]


def _neutral(how: Reduction) -> float:
    """The number of a group without entries, before heads are joined."""
    return {Reduction.MAX: -torch.inf, Reduction.MIN: torch.inf}.get(how, 0.0)


def _classes(given: Candidates) -> Tensor:
    """int8 [class rows, M]: 0 not live, 1 open, 2 always; no more rows than differ."""
    live, always = given.live, given.always
    for dim in range(live.dim() - 1):
        # A leading axis that is only spread out: its rows come again.
        if live.shape[dim] > 1 and (live.stride(dim) or always.stride(dim)):
            break
        live, always = live.narrow(dim, 0, 1), always.narrow(dim, 0, 1)
    # The bytes of truth values are 0 and 1.
    kinds = live.view(torch.int8) + (live & always).view(torch.int8)
    return kinds.reshape(-1, kinds.shape[-1]).contiguous()


def _counts(amount: Tensor, rows: torch.Size) -> Tensor:
    """A number for each row, rounded down, int32; NaN is 0, and so is what is less."""
    whole = amount.nan_to_num(nan=0.0).clamp(0, 2**30).to(torch.int32)
    return whole.expand(*rows, 1).reshape(-1)
