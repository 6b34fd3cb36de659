"""What holds for some heads of an attention, in the pattern IR.

In: expressions. Out: frozen dataclasses: the mask, score, weights, sink and output of a
set of query heads. Not its job: which heads have which (`ir.nodes.Attention`), orders
(`ir.schedules`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from patternc.ir.expressions import BoolExpr, FloatExpr
from patternc.source import NOWHERE, Span


@dataclass(frozen=True, slots=True)
class HeadCase:
    """The mask of some query heads: `(q, k)` is visible where `mask` is true."""

    heads: tuple[int, ...]
    mask: BoolExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ScoreCase:
    """What replaces the logit `s` of some heads."""

    heads: tuple[int, ...]
    score: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


class WeightKind(Enum):
    """How logits become weights: SOFTMAX normalises, the others do not."""

    SOFTMAX = "softmax"
    RELU2 = "relu2"  # max(s * factor, 0)^2, MossFormer
    SIGMOID = "sigmoid"  # sigmoid(s + bias)


@dataclass(frozen=True, slots=True)
class WeightCase:
    """The weights of some heads; `argument` is relu2's factor or sigmoid's bias."""

    heads: tuple[int, ...]
    kind: WeightKind
    argument: float = 0.0
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SinkCase:
    """A learned logit without a key: it joins the softmax's sum, and adds no value."""

    heads: tuple[int, ...]
    logit: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OutputCase:
    """What replaces the output `o` of some heads; `skip` heads have no case at all."""

    heads: tuple[int, ...]
    output: FloatExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)
