"""Head grouping. In: an attention. Out: the same meaning, one case a head group.

Heads with one mask, up to what the mask itself reads of `h`, share one loop nest.
Not its job: finding that two masks that look different are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from patternc.ir.nodes import Attention, BoolExpr, HeadCase


@dataclass(frozen=True)
class GroupHeads:
    """Merge the cases that have one mask; drop the cases that have no head."""

    name: ClassVar[str] = "group-heads"

    def __call__(self, attention: Attention) -> Attention:
        """One case for each distinct mask, in the order of first appearance."""
        groups: dict[BoolExpr, HeadCase] = {}
        for case in attention.cases:
            known = groups.get(case.mask)
            if known is not None:
                heads = tuple(sorted({*known.heads, *case.heads}))
                groups[case.mask] = replace(known, heads=heads)
            elif case.heads:
                groups[case.mask] = case
        return replace(attention, cases=tuple(groups.values()))
