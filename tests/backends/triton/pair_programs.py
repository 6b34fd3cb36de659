"""Programs whose scores read inputs at pairs of a query and a key.

In: a program's name. Out: its kernel, imported module and seeded inputs. Not its job:
other programs with data (`data_programs`).
"""

from __future__ import annotations

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

BATCH = 2
END = 57  # the queries of a call end here: 34 + 23
N = 60
CHUNK = (23, N, 34)
SQUARE = (N, N, 0)

PROGRAMS = {
    # Every pair an element of its own, elements of blocks, and of distances.
    "kinds": """attention kinds {
    heads 4 kv 2
    mask causal                  for h in {0, 1, 2}
    mask window(20) | k < 7      otherwise
    input bias[h, q, k] : float
    input block[h, q // 16, k // 16] : float
    input far[8, 50] : float
    score softcap(s, 4.0) * bias[h, q, k]                        for h in {0, 2}
    score s + block[h, q // 16, k // 16] + far[h, (q - k) // 2]  for h in {1}
    score s + far[q // 8 - k // 8, 3] * far[h, abs(q - 2 * k)]   for h in {3}
}
""",
    # Swin's relative positions, and distances between what data say.
    "windows": """def y(t) = t // 8
def x(t) = t % 8
attention windows {
    heads 2
    mask full
    input place[k] : int
    input rel[h, 9, 15] : float
    input near[40] : float
    input slope[h] : float
    score s + rel[h, clamp(y(q) - y(k), -4, 4) + 4, x(q) - x(k) + 7]
        + near[place[q] - place[k]] * slope[h]
}
""",
    # Three positions along an axis of 16, which squares of 16 keep apart or do not.
    "image": """def y(t) = (t - 32) // 16 % 4
def x(t) = (t + 16) % 16
attention image {
    heads 2
    mask full
    input rel[h, 7, 31] : float
    input near[60] : float
    score s + rel[h, y(q) - y(k) + 3, x(q) - x(k) + 15] + near[y(q) * x(q) - k + 30]
        + near[(q + 8) // 16 - x(k)]
}
""",
    # T5's buckets come as data; ALiBi's slopes are read at whole rows.
    "buckets": """attention buckets {
    heads 1
    mask causal & window(30)
    input bucket[200] : int
    input table[12, h] : float
    input slope[h] : float
    score s + table[bucket[q - k + 100], h] - slope[h] * (q - k)
}
""",
    "shared": """attention shared {
    heads 4 kv 1
    mask causal
    input bias[k, q] : float
    score s + bias[k, q]
}
""",
    "orders": """attention orders {
    heads 3
    mask causal & window(30) & (q - k) % 3 == 0
    order all by phase(3)                        for h in {0, 1}
    input far[h, 70] : float
    score s + far[h, q - k]                      for h in {0}
    score s * far[min(2, k), q - k]              for h in {1, 2}
}
""",
    "chosen": """attention chosen {
    heads 2
    input columns[h, k] : bool
    input slashes[100] : bool
    input rel[h, 90] : float
    mask causal & (columns[h, k] | slashes[q - k])
    score s + rel[h, q - k]
}
""",
    "swin": """def y(t) = t // 8
def x(t) = t % 8
attention swin {
    heads 4
    mask full
    input rel[h, 15, 15] : float
    score s + rel[h, y(q) - y(k) + 7, x(q) - x(k) + 7]
}
""",
    "single": """attention single {
    heads 1
    mask causal
    input rel[15, 15] : float
    score s + rel[q % 15, k % 15]
}
""",
    "t5": """attention t5 {
    heads 4
    mask causal
    input rel[h, 257] : float
    score s + rel[h, clamp(q - k, -128, 128) + 128]
}
""",
    "coarse": """attention coarse {
    heads 4
    mask causal
    input block[h, q // 64, k // 32] : float
    score s + block[h, q // 64, k // 32]
}
""",
    "listed": """attention listed {
    heads 2
    input doc[k] : int sorted
    input rel[h, 60] : float
    mask causal & doc[q] == doc[k]
    score s + rel[h, q - k]
}
""",
}

SIZES = {"orders": SQUARE}


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def integers(high: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, high, shape, generator=generator).int()


INPUTS: dict[str, dict[str, Tensor]] = {
    "kinds": {
        "bias": normal(4, END, N),
        "block": normal(4, 4, 4),
        "far": normal(8, 50),
    },
    "windows": {
        "place": integers(60, BATCH, N),
        "rel": normal(2, 9, 15),
        "near": normal(40),
        "slope": normal(2),
    },
    "single": {"rel": normal(15, 15)},
    "image": {"rel": normal(2, 7, 31), "near": normal(60)},
    "buckets": {
        "bucket": integers(14, 200),
        "table": normal(BATCH, 12, 1),
        "slope": normal(1),
    },
    "shared": {"bias": normal(N, END)},
    "orders": {"far": normal(3, 70)},
    "chosen": {
        "columns": integers(5, 2, N) == 0,
        "slashes": integers(3, 100) == 0,
        "rel": normal(2, 90),
    },
    "listed": {"doc": integers(4, BATCH, N).sort()[0], "rel": normal(2, 60)},
}


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
