"""C files of a package, written into a folder.

In: a package and its program. Out: the paths of the files. Not its job: their text
(`patternc.backends.c`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from patternc.backends.c.emit import c_refusal, emit_c
from patternc.cli.files import write_whole
from patternc.diagnostics import PatternError
from patternc.ir.nodes import Attention
from patternc.plan.kernel import Kernel
from patternc.runtime.package import Package


def refuse_c(kernel: Kernel, targets: Collection[str], backward: bool) -> None:
    """Refuse before anything is compiled. Raises `PatternError`."""
    refusal = c_refusal(kernel.attention, targets, backward)
    if refusal is not None:
        raise PatternError([refusal])


def write_c(package: Package, attention: Attention, folder: Path) -> list[Path]:
    """Make every text, then write each file whole. Raises `OSError`, `PatternError`."""
    texts = emit_c(package, attention)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, text.encode())
    return paths
