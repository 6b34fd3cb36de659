"""Programs that the tests of the Triton backend compile, as text.

In: a program's name. Out: its kernel, module text or imported module. Not its job:
the design's examples at full size (`tests.programs`).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from patternc import driver
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store

SMALL = Schedule(block_q=32, block_k=32, warps=4, stages=2)

PROGRAMS = {
    "causal": "attention causal_only {\n    heads 4 kv 2\n    mask causal\n}\n",
    "window": """attention sliding(w: runtime = 40) {
    heads 4 kv 2
    mask causal & window(w)
}
""",
    "streaming": """attention streamed {
    heads 4 kv 2
    mask streaming(4, 100)
}
""",
    "s2": """attention s2 {
    heads 4 kv 1
    mask causal & (window(2)[q // 8, k // 8] | (k // 8 + h + 1) % 3 == 0)
}
""",
    "duo": """attention duo(sink = 4, recent: runtime = 30) {
    heads 6 kv 3
    mask causal                   for g in {0, 2}
    mask streaming(sink, recent)  otherwise
}
""",
    "negative": """attention negative {
    heads 2
    mask (q - k - 5) // 7 % 3 == 1 | (k - 2 * q) % 11 < 4
}
""",
    "blind": """attention blind {
    heads 2
    mask 30 <= q < 90 & k < q - 10
}
""",
    "everything": "attention everything {\n    heads 2\n    mask full\n}\n",
    "nothing": "attention nothing {\n    heads 2\n    mask empty\n}\n",
    "listed": """attention listed(m: runtime = 900) {
    heads 2
    mask k <= q & (q - k) * (q - k) < m
}
""",
    "mixed": """attention mixed {
    heads 4 kv 2
    mask causal & (q * k) % 7 < 3            for h in {1}
    mask causal & (q * k + h) // 300 % 2 == 0 for h in {0, 3}
    mask window(20)                          otherwise
}
""",
    "wide": """attention wide {
    heads 2
    mask (q * 70000 + k * 90000) // 1000 % 3 == 1
}
""",
}


def kernel_of(name: str, schedule: Schedule = SMALL) -> Kernel:
    """The planned kernel of a program."""
    return driver.compile_source(
        Source(f"{name}.pat", PROGRAMS[name]), None, {}, schedule
    )


def text_of(name: str, schedule: Schedule = SMALL) -> str:
    """The module text of a program."""
    kernel = kernel_of(name, schedule)
    return emit(kernel, PROGRAMS[name], kernel.attention.name)


def module_of(name: str, folder: Path, schedule: Schedule = SMALL) -> ModuleType:
    """The imported module of a program."""
    return import_file(Store(folder).put(text_of(name, schedule), name, ".py"))
