"""Programs with inputs, scores, weights, sinks, outputs, skipped heads and orders.

In: a program's name. Out: its text, kernel, module and seeded inputs for a length. Not
its job: programs of arithmetic masks alone (`programs`), random ones
(`tests.float_strategies`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from patternc import driver
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import import_file
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store
from tests.backends.triton.programs import SMALL

LAYOUT_SIZE = 10 + 3 * 6 * 8
_LAYOUT = "layout scene = text[10] + video[f = 3, y = 6, x = 8]\n"

PROGRAMS = {
    "documents": """attention documents {
    heads 2
    input doc[k] : int sorted
    mask causal & doc[q] == doc[k]
}
""",
    "blocks": """attention blocks {
    heads 4 kv 2
    input keep[h, q // 16, k // 16] : bool
    mask causal & keep[h, q // 16, k // 16]
}
""",
    "slashes": """attention slashes {
    heads 2
    input slash[64] : bool
    mask causal & (k < 3 | slash[q - k])
}
""",
    "prefix": """attention prefix {
    heads 2
    input prefix[b] : int
    input reach[q] : int
    mask k < prefix | 0 <= q - k <= reach[q]
}
""",
    "head_table": """attention head_table {
    heads 3
    input kind[h] : int
    mask causal & (abs(kind[h]) == 1 | kind[min(N, 2)] < 3 | q - k < kind[h])
    sink min(kind[3 - 2], 4) / 8.0
}
""",
    "alibi": """attention alibi {
    heads 4 kv 2
    mask causal
    score softcap(s, 5.0) + slope[h] * (k - q)  for h in {0, 2}
    score where((q - k) % 3 == 0, min(s, 0.5), exp(s) / (1.5 + abs(s)))  for h in {3}
    input slope[h] : float
}
""",
    "relative": """attention relative {
    heads 2
    mask full
    input table[64, h] : float
    score s + table[min(abs(q - k), 63), h]
}
""",
    "sinks": """attention sinks {
    heads 4
    mask window(20)      for h in {0, 1}
    mask k < q - 40      otherwise
    input logit[h] : float
    sink logit[h]        for h in {1, 2}
}
""",
    "weights": """attention weights {
    heads 4
    mask causal
    weights relu2(0.5)     for h in {0}
    weights sigmoid(-1.0)  for h in {1, 2}
}
""",
    "outputs": """attention outputs {
    heads 4 kv 2
    mask causal               for h in {0, 1, 2}
    skip                      for h in {3}
    input gate[q, h] : float
    output 0.6 * o + 0.4 * v  for h in {1}
    output o * gate[q, h]     for h in {2}
}
""",
    "unseeing": """attention unseeing {
    heads 2
    input logit[h] : float
    mask q < k & k < q  for h in {0}
    skip                for h in {1}
    sink logit[h]       for h in {0}
}
""",
    "phases": """attention phases {
    heads 2
    mask causal & window(60) & (q - k) % 3 == 0
    order all by phase(3)
}
""",
    "scene": _LAYOUT
    + """attention scene_orders {
    heads 4
    layout scene
    mask q in text | k in text | abs(q.f - k.f) <= 1 & abs(q.y - k.y) <= 1
        & abs(q.x - k.x) <= 1                     for h in {0, 1, 3}
    mask causal                                   otherwise
    order video by tile(f = 2, y = 3, x = 5)      for h in {0}
    order video by curve(hilbert)                 for h in {1}
    order video by curve(morton)                  for h in {3}
}
""",
    "axes": _LAYOUT
    + """attention temporal {
    heads 2
    layout scene
    mask q in text | k in text | abs(q.y * 8 + q.x - k.y * 8 - k.x) <= 2
    order video by axes(y, x, f)
}
""",
    "clusters": """attention clusters {
    heads 4
    input cluster[h, k] : int
    input slope[h] : float
    mask  cluster[h, q] == cluster[h, k] & causal  for h in {0, 2}
    mask  window(30)                               for h in {1, 3}
    order all by labels(cluster)                   for h in {0, 2}
    score s + slope[h] * (k - q)
    sink  slope[h]                                 for h in {0, 1}
    weights sigmoid(0.5)                           for h in {2}
    output o + v                                   for h in {1}
}
""",
}

BATCH = 2


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _integers(high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape, generator=_generator())


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_generator())


_INPUTS: dict[str, Callable[[int, int], dict[str, Tensor]]] = {
    "documents": lambda end, n: {"doc": _integers(5, BATCH, n).sort()[0].int()},
    "blocks": lambda end, n: {
        "keep": _integers(2, 4, -(-end // 16), -(-n // 16)).bool()
    },
    "slashes": lambda end, n: {"slash": _integers(2, BATCH, 64).bool()},
    "prefix": lambda end, n: {
        "prefix": torch.tensor([3, 40]),
        "reach": _integers(20, end).to(torch.int8),
    },
    "head_table": lambda end, n: {"kind": torch.tensor([1, 7, 20])},
    "alibi": lambda end, n: {"slope": _normal(4).abs()},
    "relative": lambda end, n: {"table": _normal(BATCH, 64, 2)},
    "sinks": lambda end, n: {"logit": _normal(4)},
    "unseeing": lambda end, n: {"logit": _normal(2)},
    "outputs": lambda end, n: {"gate": _normal(end, 4)},
    "clusters": lambda end, n: {
        "cluster": _integers(5, BATCH, 4, n),
        "slope": _normal(4).abs(),
    },
}


def inputs_of(name: str, n_q: int, n_k: int, q_offset: int) -> dict[str, Tensor]:
    """The inputs of a program's call, as a user gives them."""
    make = _INPUTS.get(name)
    return make(q_offset + n_q, n_k) if make else {}


def kernel_of(name: str, schedule: Schedule = SMALL) -> Kernel:
    """The planned kernel of a program."""
    source = Source(f"{name}.pat", PROGRAMS[name])
    return driver.compile_source(source, None, {}, schedule)


def text_of(name: str, schedule: Schedule = SMALL) -> str:
    """The module text of a program."""
    kernel = kernel_of(name, schedule)
    return emit(kernel, PROGRAMS[name], kernel.attention.name)


def module_of(name: str, folder: Path, schedule: Schedule = SMALL) -> ModuleType:
    """The imported module of a program."""
    return import_file(Store(folder).put(text_of(name, schedule), name, ".py"))
