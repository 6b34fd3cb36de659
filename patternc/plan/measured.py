"""Times of kernels, measured by `patternc bench`; nothing here is derived.

In: nothing. Out: `MEASURED`, `HOPPER` and `CHOOSING`. Not its job: picking a schedule
(`plan.choose`), or a dense mask in place of chosen keys (`plan.cheaper`).

A time is that of the whole device, in nanoseconds: a full tile, a partial tile, and
what every query tile costs beside its tiles. They come from a fit to several programs
at once, so that they predict programs that were not measured. `bench --tune` prints
lines to put in here in place of those with the same device, work, head size and tile.
The gradient kernels were timed on causal alone, one time for each: what a query tile
or key tile costs beside its tiles is in the cost of these, and none stands apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from patternc.plan.prices import Choosing


class Work(Enum):
    """The kernels of an attention: the output, and the gradients of q and of k, v."""

    FORWARD = "forward"
    QUERY = "query"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Measured:
    """A kernel on one family of devices, for the columns of a tile and a dtype's bytes."""

    family: str
    work: Work
    columns: int
    itemsize: int
    block_q: int
    block_k: int
    warps: int
    stages: int
    full_ns: float
    partial_ns: float
    start_ns: float
    device: str


MEASURED: tuple[Measured, ...] = (
    # Fitted to the dense, causal and window rows at N = 16384 with 32 heads.
    Measured(
        "sm_90", Work.FORWARD, 128, 2, 64, 64, 4, 3, 4.15, 4.15, 16.9, "NVIDIA H200"
    ),
    Measured(
        "sm_90", Work.FORWARD, 64, 2, 64, 64, 4, 2, 2.48, 2.48, 7.9, "NVIDIA H200"
    ),
    Measured("sm_90", Work.QUERY, 128, 2, 64, 64, 4, 2, 4.70, 4.70, 0.0, "NVIDIA H200"),
    Measured("sm_90", Work.QUERY, 64, 2, 64, 64, 4, 2, 2.44, 2.44, 0.0, "NVIDIA H200"),
    Measured("sm_90", Work.KEY, 128, 2, 64, 64, 4, 2, 6.09, 6.09, 0.0, "NVIDIA H200"),
    Measured("sm_90", Work.KEY, 64, 2, 64, 64, 4, 2, 3.70, 3.70, 0.0, "NVIDIA H200"),
)

HOPPER: tuple[Measured, ...] = (
    # The forward kernel in Gluon (`backends.hopper`), fitted by hand with 32 heads to
    # causal rows at N = 4096, 8192 and 16384, and to a window at 16384; with 64 columns
    # the partial tile is that of an earlier fit.
    Measured(
        "sm_90", Work.FORWARD, 64, 2, 128, 128, 12, 4, 8.4, 10.0, 38.0, "NVIDIA H200"
    ),
    Measured(
        "sm_90", Work.FORWARD, 128, 2, 128, 128, 12, 2, 12.2, 16.3, 22.0, "NVIDIA H200"
    ),
)
"""Its tile and stages have no rivals: three stages, 64 keys a step and another order of
the products were measured, and slower."""


CHOOSING: tuple[Choosing, ...] = (
    # As `patternc bench --select` fits it to four choices at 128K tokens with 32 heads,
    # within 64 %: worst where diagonals lie apart. Short calls were not among them.
    Choosing(
        "sm_90", 1.81, 0.736, 0.232, 62.2, 75.8, 2.54, 0.787, 0.872, "NVIDIA H200"
    ),
)
