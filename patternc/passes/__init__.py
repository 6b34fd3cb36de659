"""The passes: IR to IR, the meaning unchanged.

In: a checked attention. Out: an attention with the same masks, in the form that
planning wants. Not its job: tiles (`plan`). The pipeline is the tuple below, in order;
a pass is a frozen dataclass whose fields are its options and whose `name` is the same
word in the command line, in tests and in `explain`.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from patternc.ir.nodes import Attention
from patternc.passes.fold_constants import FoldConstants
from patternc.passes.group_heads import GroupHeads
from patternc.passes.normalize import Normalize


class Pass(Protocol):
    """A pure function on attentions. Idempotent; `evaluate` gives the same masks."""

    name: ClassVar[str]

    def __call__(self, attention: Attention) -> Attention:
        """The attention after this pass."""
        ...


PIPELINE: tuple[Pass, ...] = (
    FoldConstants(),  # arithmetic on literals, remainders of shifted sums
    Normalize(),  # `~` on comparisons only, flat `&` and `|` without repetition
    GroupHeads(),  # heads with one mask share one loop nest
)


def run(attention: Attention) -> tuple[tuple[str, Attention], ...]:
    """The attention after each pass of the pipeline, with the pass's name."""
    steps: list[tuple[str, Attention]] = []
    for step in PIPELINE:
        attention = step(attention)
        steps.append((step.name, attention))
    return tuple(steps)
