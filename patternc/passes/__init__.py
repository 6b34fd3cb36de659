"""The passes: IR to IR, the meaning unchanged.

In: a checked attention. Out: an attention with the same masks, in the form that
planning wants. Not its job: tiles (`plan`), though a pass may ask what they would be.
The pipeline is what `pipeline` gives, in order; a pass is a frozen dataclass whose
fields are its options and whose `name` is the same word in the command line, in tests
and in `explain`.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from patternc.ir.nodes import Attention
from patternc.passes.fold_constants import FoldConstants
from patternc.passes.group_heads import GroupHeads
from patternc.passes.normalize import Normalize
from patternc.passes.reorder import Reorder
from patternc.plan.kernel import Schedule


class Pass(Protocol):
    """A pure function on attentions. Idempotent; `evaluate` gives the same masks."""

    name: ClassVar[str]

    def __call__(self, attention: Attention) -> Attention:
        """The attention after this pass."""
        ...

    def notes(self, attention: Attention) -> tuple[str, ...]:
        """What the pass finds in `attention`, and what it gains: lines for people."""
        ...


MASK_PASSES: tuple[Pass, ...] = (
    FoldConstants(),  # arithmetic on literals, remainders of shifted sums
    Normalize(),  # `~` on comparisons only, flat `&` and `|` without repetition
    GroupHeads(),  # heads with one mask, up to a number, share one loop nest
)
"""The passes that give a mask its final form: all that deciding asserts needs."""


def pipeline(schedule: Schedule | None = None) -> tuple[Pass, ...]:
    """The passes in order, for kernels of a schedule."""
    # An order of the tokens with fewer tiles comes last: the search costs the most.
    return (*MASK_PASSES, Reorder(schedule or Schedule()))


PIPELINE = pipeline()


def run(
    attention: Attention, schedule: Schedule | None = None
) -> tuple[tuple[str, Attention], ...]:
    """The attention after each pass of the pipeline, with the pass's name."""
    steps: list[tuple[str, Attention]] = []
    for step in pipeline(schedule):
        attention = step(attention)
        steps.append((step.name, attention))
    return tuple(steps)


def final_masks(attention: Attention) -> Attention:
    """The attention after `MASK_PASSES`: no order is searched."""
    for step in MASK_PASSES:
        attention = step(attention)
    return attention


def notes(
    attention: Attention, schedule: Schedule | None = None
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each pass of the pipeline has to tell about an attention, by its name."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for step in pipeline(schedule):
        found.append((step.name, step.notes(attention)))
        attention = step(attention)
    return tuple(found)
