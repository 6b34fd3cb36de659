"""Constant folding. In: an attention. Out: the same meaning, fewer nodes.

Not its job: the folding itself (`ir.fold`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from patternc.ir.fold import fold_bool
from patternc.ir.nodes import Attention


@dataclass(frozen=True)
class FoldConstants:
    """Compute what is written in literals; gather the constant of a sum."""

    name: ClassVar[str] = "fold-constants"

    def __call__(self, attention: Attention) -> Attention:
        """Fold the mask of every case."""
        cases = tuple(
            replace(case, mask=fold_bool(case.mask)) for case in attention.cases
        )
        return replace(attention, cases=cases)

    def notes(self, attention: Attention) -> tuple[str, ...]:
        """Nothing: what it writes is seen in the masks."""
        return ()
