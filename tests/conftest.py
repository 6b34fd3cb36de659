"""Hypothesis profiles: `dev` (quick), `ci` (the same examples on every run) and
`fuzz` (as many as FUZZ_EXAMPLES says, from the seed that `make fuzz` prints)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# One thread for each process, children too, and before torch is imported: `make test`
# runs a process for each core, and threads that wait for one another on a full machine
# made the tests three times as slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Compiling a random program takes as long as it takes; only hangs are mistakes, and
# those the continuous integration's own limit catches.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("dev", _COMMON, max_examples=25)
settings.register_profile("ci", _COMMON, max_examples=25, derandomize=True)
settings.register_profile(
    "fuzz",
    _COMMON,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")),
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
