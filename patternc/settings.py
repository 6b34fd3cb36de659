"""What the environment says: the only place that reads or sets environment variables.

In: the variables of the process. Out: a frozen `Settings`. Not its job: command-line
options (`patternc.cli`) and anything that would change a program's result.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`triton_interpret`: Triton runs in its interpreter, on the CPU
    (TRITON_INTERPRET=1). `quiet`: no progress lines on stderr (PATTERNC_QUIET=1).
    """

    triton_interpret: bool = False
    quiet: bool = False


def from_environment(variables: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. A variable that is empty or `0` counts as not set."""

    def is_set(name: str) -> bool:
        return variables.get(name, "") not in ("", "0")

    return Settings(is_set("TRITON_INTERPRET"), is_set("PATTERNC_QUIET"))


def interpret_triton() -> None:
    """Make Triton run in its interpreter. Only before triton is first imported."""
    if "triton" in sys.modules and not from_environment().triton_interpret:
        raise RuntimeError("triton was imported before it was told to interpret")
    os.environ["TRITON_INTERPRET"] = "1"
