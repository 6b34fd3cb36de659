"""The host code of one program: a copy of `host` that knows its facts and its kernels.

In: a package and the code of its kernels on the devices of a process. Out: a module as a
generated one is. Not its job: what callers see (`attention`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

from . import host as _host
from .data import RowCase
from .floats import Rows, row_value
from .judges import judge_of
from .launch import Code, Kernel
from .lists import stored_lists
from .manifest import READ_NO_TOKENS, Facts
from .package import Package
from .pairs import add_pair_sums
from .planning import select_keys
from .reads import input_gradients, keep_within
from .steps import most_steps

_KERNELS = (
    "forward_kernel",
    "ordered_kernel",
    "combine_kernel",
    "delta_kernel",
    "query_gradient_kernel",
    "key_gradient_kernel",
    "column_gradient_kernel",
    "ordered_query_gradient_kernel",
    "ordered_key_gradient_kernel",
    "hopper_kernel",
    "pool_kernel",
    *READ_NO_TOKENS,
)
_MAPS = ("row_sums", "columns", "diagonals", "parts")
"""The kernels of one probe; a package has those that it needs."""


def host_of(package: Package, code: Code) -> ModuleType:
    """A copy of the module `host` that stands for one program, as a generated one does."""
    name, file = f"{__package__}.host", _host.__file__
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts = package.manifest.facts
    for constant, value in _constants(facts).items():
        setattr(module, constant, value)
    for kernel in _KERNELS:
        setattr(module, kernel, Kernel(kernel, code))
    module.has_tma = lambda device: code.choice(device.index).has_tma
    module.is_hopper = lambda device: (
        device.type == "cuda" and code.choice(device.index).target == "sm_90"
    )
    module.visited = lambda qt, n_k, values: most_steps(facts, qt, n_k, values)
    module.stored_lists = stored_lists(package)
    _follow_data(module, facts, code)
    if not facts.shares:
        module.MOST_SPLITS = 1
    found: ModuleType = module
    return found


def _follow_data(module: Any, facts: Facts, code: Code) -> None:
    """What the host code asks for inputs, chosen stripes and plans."""
    module.BATCH_AXES = {
        x.name: next((at for at, axis in enumerate(x.axes) if axis.kind == "b"), 0)
        for x in facts.inputs
    }
    module.MADE_INPUTS = tuple(x.name for x in facts.inputs if not x.is_given)
    if facts.stripes is not None:
        module.keep_within = partial(keep_within, facts.stripes, facts.heads)
    module.Rows = Rows
    module.SINKS = _row_cases(module, facts.sinks)
    module.OUTPUTS = _row_cases(module, facts.outputs)
    module.add_pair_sums = partial(add_pair_sums, module, facts.pairs)
    if facts.reads is not None:
        module.input_gradients = partial(input_gradients, module, facts.reads)
    module.JUDGES = {
        at: partial(judge_of, module, cover.judge, facts.lists_chosen)
        for at, cover in enumerate(facts.listed)
    }
    if facts.lists_chosen:
        module.MOST_LISTS, module.WAITS = module.MOST_STATE_LISTS, False
        module.is_little = module.is_little_state
        module.build_lists = module.build_state_lists
        module.reversed_lists = module.reversed_state_lists
    plan = facts.plan
    if plan is not None:
        module.select_keys = partial(select_keys, module, plan)
        module.MAPS = [
            {name: Kernel(f"{name}_of_map_{at}", code) for name in _MAPS}
            for at in range(len(plan.probes))
        ]
        module.shared_memory = lambda device: plan.shared.get(
            code.choice(device.index).target, 0
        )


def _row_cases(module: Any, cases: Sequence[RowCase]) -> list[tuple[object, ...]]:
    return [(x.heads, partial(row_value, module, x.value)) for x in cases]


def _constants(facts: Facts) -> dict[str, object]:
    """What the host code calls the facts of a program."""
    return {
        "NAME": facts.name,
        "HEADS": facts.heads,
        "KV_HEADS": facts.kv_heads,
        "BLOCK_Q": facts.block_q,
        "BLOCK_K": facts.block_k,
        "HAS_HOPPER": facts.hopper_blocks is not None,
        "HOPPER_Q": (facts.hopper_blocks or (1, 1))[0],
        "HOPPER_K": (facts.hopper_blocks or (1, 1))[1],
        "HOPPER_STAGES": {x.columns: x.stages for x in facts.hopper_stages},
        "HOPPER_WALKS": len(facts.groups) == 1,
        "LARGEST_DIM": facts.largest_dim,
        "DELTA_ROWS": facts.delta_rows,
        "LAUNCHES": {
            (x.work, x.columns, x.itemsize): (x.warps, x.stages) for x in facts.launches
        },
        "PARAMS": dict(facts.params),
        "PACKS": facts.packs,
        "SHARES": facts.shares,
        "HIDES": facts.hides,
        "HIDES_REVERSED": facts.hides_reversed,
        "IS_ORDERED": facts.is_ordered,
        "RUNS_WITHOUT_KEYS": not facts.has_lse or facts.changes_rows,
        "HAS_EPILOGUE": facts.changes_rows,
        "READS_OWN_VALUE": facts.reads_own_value,
        "LAYOUT_SIZE": facts.layout_size,
        "WHOLE_ONLY": facts.whole_only,
        "WHOLE_ONLY_REVERSED": facts.whole_only_reversed,
        "LIST_TENSORS": facts.list_tensors,
        "TURNED_TENSORS": facts.turned_tensors,
        "LIST_NUMBERS": facts.list_numbers,
        **_data_constants(facts),
    }


def _data_constants(facts: Facts) -> dict[str, object]:
    """Those of programs that read inputs or choose keys."""
    stripes, reads, plan = facts.stripes, facts.reads, facts.plan
    blocks = () if stripes is None else stripes.blocks
    selections = () if plan is None else plan.selections
    return {
        "INPUTS": {
            item.name: (
                item.element,
                tuple((x.kind, x.shift, x.divisor, x.size) for x in item.axes),
                item.is_sorted,
            )
            for item in facts.inputs
        },
        "TABLES": list(facts.tables),
        "LIST_INPUTS": list(facts.list_inputs),
        "LISTED": [
            {"heads": list(x.heads), "alike": x.alike, "judge": at}
            for at, x in enumerate(facts.listed)
        ],
        "HAS_STRIPES": stripes is not None,
        "HAS_DIAGONALS": stripes is not None and stripes.has_diagonals,
        "HAS_COLUMNS": stripes is not None and stripes.has_columns,
        "SIZE_Q": blocks[0] if blocks else 0,
        "SIZE_K": blocks[1] if blocks else 0,
        "ROW_SLOTS": 0 if reads is None else reads.rows,
        "COLUMN_SLOTS": 0 if reads is None else reads.columns,
        "READS": _names(facts),
        "PAIR_TABLES": tuple({x.table: None for x in facts.pairs}),
        "PAIR_SUMS": tuple(x.sums or "diagonals" for x in facts.pairs),
        "PLAN_PARAMS": {} if plan is None else dict(plan.params),
        "MADE_KEYS": {own.table: len(own.firsts) for own in selections},
        "PLACES": [name for own in selections for name in own.firsts if name],
    }


def _names(facts: Facts) -> tuple[str, ...]:
    """The inputs that scores read."""
    found = [] if facts.reads is None else [x.table for x in facts.reads.reads]
    return tuple(dict.fromkeys([*found, *(x.table for x in facts.pairs)]))
