"""What is computed once for each query row: sinks and outputs.

In: an attention, what a call says, and for outputs the rows that the softmax gave.
Out: the learned logits, the changed rows, with autograd. Not its job: pairs
(`backends.reference`, `backends.tiled`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from patternc.backends.floats import FloatPoint, evaluate_float
from patternc.backends.inputs import ElementInputs, element_inputs, elements_of
from patternc.ir.evaluate import Ints, Point
from patternc.ir.floats import float_subexpressions, inputs_of
from patternc.ir.nodes import Attention, Axis, FloatExpr, Given, GivenValue, WeightKind

OWN_VALUE = GivenValue(Given.VALUE)


@dataclass(frozen=True, slots=True)
class Invocation:
    """An attention and what a call says beside its tensors."""

    attention: Attention
    scale: float
    q_offset: int
    n_k: int
    params: Mapping[str, int] = field(default_factory=dict)

    def point(
        self,
        heads: Sequence[int],
        q: Tensor,
        inputs: ElementInputs,
        known: Mapping[FloatExpr, Tensor],
    ) -> FloatPoint:
        """A point [heads, n_q, 1] for the rows of `q`, [B, H, n_q, D].

        `known` are tensors [B, heads, n_q, any].
        """
        rows = np.arange(q.shape[2], dtype=np.int64) + self.q_offset
        axes: dict[Axis, int | Ints] = {
            Axis.HEAD: np.asarray(heads, dtype=np.int64)[:, None, None],
            Axis.QUERY: rows[:, None],
            Axis.LENGTH: self.n_k,
        }
        point = Point(axes, self.params, inputs.tables)
        floats = {name: item.to(q.dtype) for name, item in inputs.floats.items()}
        return FloatPoint(point, known, floats, q.dtype, q.device)


def sink_logits(call: Invocation, q: Tensor, inputs: ElementInputs) -> Tensor:
    """The learned logit of every row, [H, n_q]; -inf for heads without one."""
    sinks = torch.full(q.shape[1:3], -torch.inf, dtype=q.dtype, device=q.device)
    for case in call.attention.sinks:
        values = evaluate_float(case.logit, call.point(case.heads, q, inputs, {}))
        rows = values.expand(len(case.heads), q.shape[2], 1).squeeze(-1)
        sinks = sinks.index_copy(0, _numbers(case.heads, q), rows)
    return sinks


def join_sinks(
    call: Invocation,
    output: Tensor,
    lse: Tensor,
    inputs: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Output and LSE with the learned logits in the softmax's sum.

    With `t` the LSE and `t'` = log(exp(t) + exp(sink)), each weight shrinks by
    exp(t - t').
    """
    sinks = call.attention.sinks
    if not sinks:
        return output, lse
    names = frozenset().union(*(inputs_of(case.logit) for case in sinks))
    found = []
    for elements in elements_of(inputs, names, len(output)):
        part = slice(elements.start, elements.stop)
        own = sink_logits(call, output[part], element_inputs(inputs, elements.start))
        found.append(own.expand(len(elements), *own.shape))
    every = {head for case in sinks for head in case.heads}
    heads = sorted(every.difference(unnormalised_heads(call.attention)))
    logits, before = torch.cat(found)[:, heads], lse[:, heads]
    empty = (before == -torch.inf) & (logits == -torch.inf)
    after = torch.logaddexp(before.masked_fill(empty, 0), logits)
    share = (before.masked_fill(empty, 0) - after).exp()
    joined = output[:, heads] * share.unsqueeze(-1)
    after = after.masked_fill(empty, -torch.inf)
    return with_heads(output, heads, joined), with_heads(lse, heads, after)


def change_outputs(
    call: Invocation, q: Tensor, v: Tensor, output: Tensor, inputs: Mapping[str, Tensor]
) -> Tensor:
    """The output [B, H, n_q, D_v] after the program's `output` cases.

    `v` is [B, KV, n_k, D_v]; `inputs` have a batch axis. Where a case reads the query
    token's own value row, every query must be among the keys.
    """
    for case in call.attention.outputs:
        kv_heads = [head // call.attention.group_size for head in case.heads]
        rows = output[:, list(case.heads)]
        changed = []
        for elements in elements_of(inputs, inputs_of(case.output), len(q)):
            part = slice(elements.start, elements.stop)
            known: dict[FloatExpr, Tensor] = {GivenValue(Given.OUTPUT): rows[part]}
            if reads_own_value(case.output):
                places = slice(call.q_offset, call.q_offset + q.shape[2])
                known[OWN_VALUE] = v[part][:, kv_heads, places]
            own = element_inputs(inputs, elements.start)
            at = call.point(case.heads, q, own, known)
            changed.append(evaluate_float(case.output, at).expand(rows[part].shape))
        output = with_heads(output, case.heads, torch.cat(changed))
    return output


def finish_rows(
    call: Invocation,
    output: Tensor,
    lse: Tensor,
    v: Tensor,
    inputs: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Output [B, H, n_q, D] and LSE [B, H, n_q] after sinks and `output` cases.

    `v` is [B, KV, n_k, D], `inputs` have a batch axis. Where the program has neither,
    the tensors come back as they are.
    """
    output, lse = join_sinks(call, output, lse, inputs)
    return change_outputs(call, output, v, output, inputs), lse


def unnormalised_heads(attention: Attention) -> tuple[int, ...]:
    """The heads whose weights have no sum, so that LSE and sink mean nothing."""
    return tuple(
        head
        for case in attention.weights
        if case.kind is not WeightKind.SOFTMAX
        for head in case.heads
    )


def reads_own_value(output: FloatExpr) -> bool:
    """Whether an output reads `v`."""
    return OWN_VALUE in float_subexpressions(output)


def with_heads(x: Tensor, heads: Sequence[int], values: Tensor) -> Tensor:
    """`x` [B, H, ...] with `values` [B, heads, ...] in the place of some heads."""
    return x.index_copy(1, _numbers(heads, x), values)


def _numbers(heads: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(heads, dtype=torch.int64, device=like.device)
