"""Elements that scores read at pairs of a query and a key, as a package says them.

In: a planned kernel. Out: `PairRead`s of the manifest, from which
`patternc.runtime.pairs` adds up gradients as the `add_pair_sums` of a generated module
does. Not its job: that text (`input_gradients`), what tiles store (`pairs`).
"""

from __future__ import annotations

from patternc.backends.triton import pairs
from patternc.backends.triton.expr import folded
from patternc.backends.triton.formulas import formula
from patternc.ir.nodes import KEY, QUERY
from patternc.plan.kernel import Kernel, Schedule
from patternc.runtime.data import PairRead


def pair_facts(kernel: Kernel) -> tuple[PairRead, ...]:
    """The elements of inputs that scores read at pairs, as kernels take their sums."""
    return tuple(_pair(read, kernel.schedule) for read in pairs.all_pair_reads(kernel))


def _pair(own: pairs.PairRead, schedule: Schedule) -> PairRead:
    read = own.read
    skip = (QUERY, KEY) if own.has_own_element else ()
    places = (None if x in skip else formula(folded(x)) for x in read.indices)
    return PairRead(
        read.table,
        tuple(own.case.heads),
        pairs.sum_sizes(own.sums, schedule),
        tuple(places),
        tuple(read.indices.index(x) for x in skip),
        own.has_order,
        own.reads_head,
        own.reads_data,
    )
