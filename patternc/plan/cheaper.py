"""When a mask that selects is worth its estimate.

In: an attention that may be dense instead, and the sizes of a call. Out: what either
way takes, in milliseconds, from sizes alone: nothing is asked of the data. Not its job:
what is counted (`plan.choosing_work`), measured times (`plan.measured`), the arithmetic,
which packages have too (`plan.prices`).

Whether chosen keys lie in clusters only data know. Long calls count on it, calls of up
to SHORT keys count on the opposite, and dense wins where the difference is small
(`CLEARLY` in `plan.prices`).
"""

from __future__ import annotations

from dataclasses import dataclass

from patternc.ir.nodes import Attention
from patternc.plan.choosing_work import CallSizes, Shares
from patternc.plan.measured import CHOOSING
from patternc.plan.prices import COLUMNS, SHORT, Choosing, is_dense_cheaper

LEAST_LENGTH, MOST_LENGTH = 1024, 1 << 20
"""Lengths at which the crossover is looked for."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds for all heads of one batch element: the plan, attention, a dense call.

    `density` and `dense_density` are the shares of visible pairs, `scattered` the share
    of 64 x 64 tiles that chosen keys reach if they lie apart.
    """

    estimate: float
    chosen: float
    dense: float
    density: float
    dense_density: float
    scattered: float

    @property
    def is_dense_cheaper(self) -> bool:
        """Whether choosing does not clearly pay."""
        return is_dense_cheaper(self.estimate, self.chosen, self.dense)


def costs(
    attention: Attention,
    n_q: int,
    n_k: int,
    q_offset: int,
    params: tuple[tuple[str, int], ...],
    times: Choosing = CHOOSING[0],
    head_dim: int | None = None,
) -> Costs:
    """What choosing and attending takes, and what the dense masks take.

    For rows of as many columns as `times` are of, unless `head_dim` says otherwise.
    """
    found = Shares.of(attention, CallSizes(n_q, n_k, q_offset, dict(params)))
    ms = found.work().milliseconds(times, n_k <= SHORT, head_dim or COLUMNS)
    estimate, chosen, dense = ms
    seen, apart = found.mean(found.seen), found.mean(found.apart)
    return Costs(estimate, chosen, dense, seen, found.dense, apart)


def crossover(
    attention: Attention,
    params: tuple[tuple[str, int], ...],
    times: Choosing = CHOOSING[0],
) -> int | None:
    """About the least length from which on choosing clearly pays; None if at none.

    To an eighth, between LEAST_LENGTH and MOST_LENGTH keys and as many queries.
    """

    def pays(n: int) -> bool:
        return not costs(attention, n, n, 0, params, times).is_dense_cheaper

    low = high = MOST_LENGTH
    if not pays(high):
        return None
    while low > LEAST_LENGTH and pays(low):
        low, high = low // 2, low
    if pays(low):
        return low
    for _ in range(3):
        middle = (low + high) // 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    return high
