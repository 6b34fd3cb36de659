"""Modules with a kernel for Hopper, made of the Triton tests' programs.

In: a program's name. Out: its text or its imported module. Not its job: the programs
(`tests.backends.triton.programs`).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from patternc.backends.hopper.route import hopper_kernel
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.plan.kernel import Schedule
from patternc.store import Store
from tests.backends.triton.programs import PROGRAMS, kernel_of

NAMES = ("blind", "causal", "duo", "everything", "nothing", "streaming", "window")
"""The programs that have one."""


def text_of(name: str) -> str:
    """The module text of a program."""
    kernel = kernel_of(name, Schedule())
    return emit(kernel, PROGRAMS[name], kernel.attention.name, hopper_kernel(kernel))


def module_of(name: str, folder: Path) -> ModuleType:
    """The imported module of a program."""
    return import_file(Store(folder).put(text_of(name), name, ".py"))
