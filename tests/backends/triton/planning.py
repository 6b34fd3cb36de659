"""A module of estimation and selection alone.

In: a condition on pairs. Out: the text's functions, without an attention around them.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from patternc.backends.triton.estimate import (
    host_texts,
    printer_of,
    probe_texts,
)
from patternc.backends.triton.expr import calls_floor_helpers, kernel_box
from patternc.backends.triton.fused import Probe, SummedBy
from patternc.backends.triton.load import import_file
from patternc.backends.triton.template import fill, read
from patternc.ir.nodes import BoolExpr
from patternc.ir.selection import Logits
from patternc.store import Store

HEADS = 4

IMPORTS = """\
import contextlib
import functools
import math

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634
NAME = "planning"
"""


def module_of(
    condition: BoolExpr, folder: Path, params: tuple[str, ...] = ()
) -> ModuleType:
    """A module whose MAP_0 is of the scores where `condition` holds."""
    printer = printer_of(kernel_box(HEADS, 64, 64, params))
    probe = Probe(Logits(), condition, True, params)
    kernels = probe_texts(0, probe, frozenset(SummedBy), printer)
    floor = [fill("floor")] if calls_floor_helpers("".join(kernels)) else []
    parts = [IMPORTS, *floor, *host_texts(), *kernels, _called()]
    return import_file(Store(folder).put("\n\n".join(parts), "planning", ".py"))


def _called() -> str:
    """What the text calls of the launcher's: the functions up to the next blank lines."""
    text = read("launch.py.tmpl")
    wanted = ("padded", "current", "precision_of", "access_of", "has_tma")
    found = text.split("\n\n\n")
    parts = [x for x in found if any(f"def {name}(" in x for name in wanted)]
    return "\n\n\n".join(parts) + "\n"
