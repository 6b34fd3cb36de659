"""Modules with a kernel for Hopper, made of the Triton tests' programs.

In: a program's name. Out: its kernel, text or imported module. Not its job: most of the
programs (`tests.backends.triton`).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from patternc import driver
from patternc.backends.hopper.route import possible_route
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store
from tests.backends.triton import data_programs, programs

NAMES = ("blind", "causal", "duo", "everything", "nothing", "streaming", "window")
"""The programs that have one, of masks of arithmetic."""

LISTED = ("documents", "prefix")
"""Those whose tiles follow inputs."""

CHOSEN = ("table", "wide", "chosen")
"""Those whose blocks an input or a selection chooses."""

PROGRAMS = {
    **programs.PROGRAMS,
    **data_programs.PROGRAMS,
    "table": """attention table {
    heads 4 kv 2
    input keep[h, q // 128, k // 128] : bool
    mask causal & keep[h, q // 128, k // 128]
}
""",
    "wide": """attention wide(near: runtime = 300) {
    heads 4 kv 2
    input keep[b, h, q // 256, k // 384] : bool
    mask abs(q - k) < near & (keep[h, q // 256, k // 384] | k // 384 == 0)  for h in {0}
    mask abs(q - k) < near & keep[h, q // 256, k // 384]                    otherwise
}
""",
    "small_blocks": """attention small_blocks {
    heads 4
    input keep[h, q // 64, k // 128] : bool
    mask causal & keep[h, q // 64, k // 128]
}
""",
    "one_sided": """attention one_sided {
    heads 4
    input keep[h, q // 128, k // 128] : bool
    mask causal & keep[h, q // 128, k // 128]  for h in {0}
    mask window(100)                           otherwise
}
""",
    "chosen": """attention chosen(p = 0.7) {
    heads 4 kv 2
    let coarse = softmax(mean(Q by q // 128) @ mean(K by k // 128) * scale)
    let some = top_p(p, coarse per q // 128, always k // 128 == q // 128)
    mask causal & (q // 128, k // 128) in some
}
""",
}


def kernel_of(name: str, schedule: Schedule | None = None) -> Kernel:
    """The planned kernel of a program, on the default tiles unless given."""
    source = Source(f"{name}.pat", PROGRAMS[name])
    return driver.compile_source(source, None, {}, schedule or Schedule())


def text_of(name: str) -> str:
    """The module text of a program."""
    kernel = kernel_of(name)
    return emit(kernel, PROGRAMS[name], kernel.attention.name, possible_route(kernel))


def module_of(name: str, folder: Path) -> ModuleType:
    """The imported module of a program."""
    return import_file(Store(folder).put(text_of(name), name, ".py"))
