"""From a file to the object that a user calls.

In: a `.pat` file, the values of its parameters, a schedule, a backend's name. Out: an
`Attention`. Not its job: any stage of the compiler (`patternc.driver`).
"""

from __future__ import annotations

import os

from patternc import backends, driver
from patternc.attention import Attention
from patternc.plan.asked import checked
from patternc.plan.kernel import Schedule
from patternc.syntax.load import read_source


def load(
    path: str | os.PathLike[str],
    entry: str | None = None,
    *,
    backend: str | None = None,
    schedule: Schedule | None = None,
    **params: float,
) -> Attention:
    """Compile one attention of a `.pat` file.

    `entry` names it and may be left out if the file has only one. `backend` is
    "reference", "tiled", "triton" or "hopper"; the default is chosen by the device of
    each call: triton on a GPU, hopper on one of that family, tiled elsewhere. `params` are values of its parameters; those
    declared as run-time parameters may also wait for the call. Raises `PatternError`
    for everything wrong with the program, asserts that fail included, `ValueError` or
    `TypeError` for a wrong backend or schedule.
    """
    backends.get_ready(backend)
    wanted = None if schedule is None else checked(schedule)
    trace = driver.trace_source(read_source(path), entry, params, wanted)
    attention = Attention(trace)
    return attention if backend is None else attention.backend(backend)
