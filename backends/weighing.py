"""Scores and weights of the pairs of a chunk, for the tiled backend.

In: the logits of a chunk's pairs. Out: the logits that its heads' scores put in their
place, -inf where a pair is invisible; the weights that follow; and the way back, for
gradients. Not its job: which pairs there are (`backends.chunks`), sums over keys
(`backends.tiled`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from patternc.backends.chunks import Chunk, Group, Weighing
from patternc.backends.floats import (
    FloatPoint,
    add_read_gradient,
    evaluate_where,
    read_values,
)
from patternc.ir.evaluate import Bools, Ints, Point
from patternc.ir.floats import float_reads
from patternc.ir.nodes import (
    Axis,
    FloatExpr,
    FloatRead,
    Given,
    GivenValue,
    WeightKind,
)

_SCORE = GivenValue(Given.SCORE)


@dataclass(frozen=True, slots=True)
class Span:
    """Key columns `[start, stop)` of a chunk and which pairs of them are visible."""

    start: int
    stop: int
    seen: Bools

    def of(self, x: Tensor) -> Tensor:
        """Its columns of [..., C]."""
        return x[..., self.start : self.stop]


@dataclass(frozen=True, slots=True)
class Traced:
    """Changed logits of one span with what they were computed from, for autograd."""

    span: Span
    at: FloatPoint
    logits: Tensor
    reads: Mapping[FloatRead, Tensor]
    changed: Tensor


def change_logits(
    logits: Tensor,
    group: Group,
    chunk: Chunk,
    part: slice,
    inputs: Mapping[str, Tensor],
) -> Tensor:
    """The group's score of each visible pair, -inf elsewhere.

    `logits` is [X, T, share, R, C]; `part` are its places among the group's X. `inputs`
    are the floating ones, of the group's batch elements.
    """
    score = group.weighing.score
    assert score is not None
    changed = []
    for span in spans_of(chunk):
        at = _point(span.of(logits), span, group, chunk, part, inputs)
        changed.append(evaluate_where(score, at, span.seen, -torch.inf))
    return torch.cat(changed, dim=-1)


def trace_logits(
    logits: Tensor,
    group: Group,
    chunk: Chunk,
    part: slice,
    inputs: Mapping[str, Tensor],
) -> list[Traced]:
    """What `change_logits` does, span by span, ready for `score_gradients`."""
    score = group.weighing.score
    assert score is not None
    found = []
    with torch.enable_grad():
        for span in spans_of(chunk):
            own = span.of(logits).detach().requires_grad_()
            at = _point(own, span, group, chunk, part, inputs)
            reads: dict[FloatRead, Tensor] = {
                read: read_values(read, at).detach().requires_grad_()
                for read in float_reads(score)
            }
            known: dict[FloatExpr, Tensor] = dict(at.known)
            known.update((read, value) for read, value in reads.items())
            changed = evaluate_where(score, at.knowing(known), span.seen, -torch.inf)
            found.append(Traced(span, at, own, reads, changed))
    return found


def score_gradients(
    traced: list[Traced], gradient: Tensor, totals: Mapping[str, Tensor]
) -> Tensor:
    """From the gradient of the changed logits to that of the logits, [..., C].

    The gradients of the floating inputs are added to `totals`.
    """
    found = []
    for item in traced:
        leaves = [item.logits, *item.reads.values()]
        if not item.changed.requires_grad:  # a score of numbers alone
            found.append(torch.zeros_like(item.logits))
            continue
        first, *others = torch.autograd.grad(
            item.changed, leaves, item.span.of(gradient), allow_unused=True
        )
        found.append(torch.zeros_like(item.logits) if first is None else first)
        for read, own in zip(item.reads, others, strict=True):
            if own is not None:
                add_read_gradient(totals[read.table], read, item.at, own)
    return torch.cat(found, dim=-1)


def spans_of(chunk: Chunk) -> Iterator[Span]:
    """All columns of a chunk in order; between the runs every pair is visible."""
    every = np.ones((1, 1, 1, 1), dtype=np.bool_)
    end = 0
    for run, visible in zip(chunk.runs, chunk.visibility(), strict=True):
        if run.start > end:
            yield Span(end, run.start, every)
        yield Span(run.start, run.stop, visible.unsqueeze(1).cpu().numpy())
        end = run.stop
    if end < chunk.keys.shape[1]:
        yield Span(end, chunk.keys.shape[1], every)


def weigh(logits: Tensor, weighing: Weighing) -> Tensor:
    """Weights [..., C] of masked logits; those of a softmax sum to 1, or are NaN."""
    match weighing.kind:
        case WeightKind.SOFTMAX:
            return torch.softmax(logits, -1)
        case WeightKind.RELU2:
            return _relu(logits, weighing.argument).square_()
        case WeightKind.SIGMOID:
            return (logits + weighing.argument).sigmoid_()
        case _:
            assert_never(weighing.kind)


def weights_and_slopes(
    logits: Tensor, weighing: Weighing, lse: Tensor
) -> tuple[Tensor, Tensor]:
    """The weights again, and the derivative of each by its own logit.

    `lse` [..., 1] is that of each row, 0 if the row is empty. For a softmax the slope
    is without the share that comes through the sum.
    """
    match weighing.kind:
        case WeightKind.SOFTMAX:
            weights = (logits - lse).exp_()
            return weights, weights
        case WeightKind.RELU2:
            root = _relu(logits, weighing.argument)
            return root.square(), root * (2 * weighing.argument)
        case WeightKind.SIGMOID:
            weights = (logits + weighing.argument).sigmoid_()
            return weights, weights * (1 - weights)
        case _:
            assert_never(weighing.kind)


def _relu(logits: Tensor, factor: float) -> Tensor:
    """`max(factor * s, 0)`, and 0 where a pair is invisible, whatever the factor."""
    hidden = logits == -torch.inf
    return (logits * factor).relu_().masked_fill_(hidden, 0)


def _point(
    logits: Tensor,
    span: Span,
    group: Group,
    chunk: Chunk,
    part: slice,
    inputs: Mapping[str, Tensor],
) -> FloatPoint:
    """The pairs of a span, [X, T, share, R, C]."""
    call = chunk.call
    heads = np.asarray(group.heads, dtype=np.int64).reshape(-1, group.share)
    heads = np.tile(heads, (len(group.elements), 1))[part]
    keys = chunk.keys.cpu().numpy()[:, span.start : span.stop]
    rows = chunk.rows.cpu().numpy()
    axes: dict[Axis, int | Ints] = {
        Axis.HEAD: heads[:, None, :, None, None],
        Axis.QUERY: rows[:, None, :, None] + call.q_offset,
        Axis.KEY: keys[:, None, None, :],
        Axis.LENGTH: call.n_k,
    }
    point = Point(axes, dict(call.params), chunk.tables)
    return FloatPoint(point, {_SCORE: logits}, inputs, logits.dtype, logits.device)
