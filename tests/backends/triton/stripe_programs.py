"""Programs that choose diagonals and columns, and their calls.

In: a program's name, a call's sizes, how much of it is chosen. Out: its kernel, its
seeded inputs and tensors. Not its job: what is done with them (`test_stripes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
from tests.backends.triton.backward_calls import Step, step_of

PROGRAMS = {
    "vertical_slash": """attention vertical_slash {
    heads 2 kv 1
    input columns[h, k] : bool
    input diagonals[b, h, 96] : bool
    mask causal & (columns[h, k] | diagonals[h, q - k] | k < 2 | q - k < 3)
}
""",
    "only_columns": """attention only_columns {
    heads 2 kv 1
    input columns[h, k] : bool
    mask columns[h, k] & abs(q - k) < 40
}
""",
    "both_sides": """attention both_sides {
    heads 2 kv 1
    input diagonals[300] : bool
    mask diagonals[q - k + 150]
}
""",
    "groups": """attention groups(near: runtime = 5) {
    heads 4
    input columns[b, h, k] : bool
    input slash[64] : int
    input far[h] : int
    mask window(9)                                             for h in {0}
    mask causal & (columns[h, k] | slash[q - k] == h)          for h in {1}
    mask slash[k - q] == 1 | slash[(q - k) % 64] == 2          for h in {2}
    mask causal & (columns[h, k] | near <= q - k < far[h])     for h in {3}
    score softcap(s, 4.0) + (k - q) * 0.01                     for h in {1, 2}
    sink 0.25                                                  for h in {3}
    weights sigmoid(-0.5)                                      for h in {2}
}
""",
    "chosen_blocks": """attention chosen_blocks {
    heads 4 kv 2
    input keep[b, h, q // 64, k // 64] : bool
    mask abs(q - k) < 70 & (keep[h, q // 64, k // 64] | k // 64 == 0)  for h in {0, 1}
    mask window(40)                                                    otherwise
}
""",
    "flexible": """attention flexible {
    heads 3
    input aware[b, h] : bool
    input keep[h, q // 64, k // 128] : bool
    input columns[b, h, k] : bool
    input diagonals[h, 200] : bool
    mask causal & (aware[h] & keep[h, q // 64, k // 128]
        | ~aware[h] & (columns[h, k] | diagonals[h, q - k]))
}
""",
    "two_kinds": """attention two_kinds {
    heads 2
    input columns[h, k] : bool
    input keep[q // 16, k // 16] : bool
    input slope[h] : float
    mask columns[h, k] & causal                                for h in {0}
    mask keep[q // 16, k // 16] & causal                       for h in {1}
    score s + slope[h] * (k - q)
}
""",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call: its sizes, the share that is chosen, and the seed of what is random."""

    n_q: int
    n_k: int
    q_offset: int
    density: float
    seed: int = 0

    @property
    def size(self) -> tuple[int, int, int]:
        """Queries, keys, and the position of the first query."""
        return self.n_q, self.n_k, self.q_offset


@cache
def kernel_of(name: str, block_q: int, block_k: int) -> Kernel:
    """The planned kernel of a program."""
    return _planned(name, Schedule(block_q, block_k))


def module_of(name: str, folder: Path, schedule: Schedule) -> ModuleType:
    """The imported module of a program."""
    text = emit(_planned(name, schedule), PROGRAMS[name], name)
    return import_file(Store(folder).put(text, name, ".py"))


def _planned(name: str, schedule: Schedule) -> Kernel:
    source = Source(f"{name}.pat", PROGRAMS[name])
    return driver.compile_source(source, None, {}, schedule)


def step_for(kernel: Kernel, call: Call) -> Step:
    """The call and the gradients that come back to it."""
    return step_of(kernel, call.size, inputs_of(kernel, call), dim=16)


def inputs_of(kernel: Kernel, call: Call) -> dict[str, Tensor]:
    """The inputs of a call, as a user gives them."""
    generator = torch.Generator().manual_seed(call.seed)

    def tiles(n: int, size: int) -> int:
        return max(0, -(-n // size))

    heads, n_k, end = kernel.attention.heads, call.n_k, call.q_offset + call.n_q
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "vertical_slash": {"columns": (heads, n_k), "diagonals": (2, heads, 96)},
        "only_columns": {"columns": (heads, n_k)},
        "both_sides": {"diagonals": (300,)},
        "groups": {"columns": (2, heads, n_k)},
        "two_kinds": {
            "columns": (heads, n_k),
            "keep": (tiles(end, 16), tiles(n_k, 16)),
        },
        "chosen_blocks": {"keep": (2, heads, tiles(end, 64), tiles(n_k, 64))},
        "flexible": {
            "aware": (2, heads),
            "keep": (heads, tiles(end, 64), tiles(n_k, 128)),
            "columns": (2, heads, n_k),
            "diagonals": (heads, 200),
        },
    }
    found: dict[str, Tensor] = {
        name: torch.rand(shape, generator=generator) < call.density
        for name, shape in shapes[kernel.attention.name].items()
    }
    if kernel.attention.name == "groups":
        found["slash"] = torch.randint(0, 4, (64,), generator=generator)
        found["far"] = torch.tensor([0, 0, 0, 30])
    if kernel.attention.name == "flexible":
        found["aware"] = torch.tensor([[True, False, True], [False, False, True]])
    if kernel.attention.name == "two_kinds":
        found["slope"] = torch.rand(heads, generator=generator)
    return found
