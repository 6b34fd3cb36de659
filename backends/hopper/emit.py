"""From a kernel to the text of its Gluon kernel and of that kernel's launch.

In: a kernel that is planned on the tiles of `route`. Out: text for a module that
`backends.triton` emits: ranges, masks and names are those of its own kernels. Not its
job: the rest of the module (`backends.triton.emit`), which programs qualify (`route`).
"""

from __future__ import annotations

from patternc.backends.triton.features import features_of
from patternc.backends.triton.loops import places, rule_lines, test_lines, tile_lines
from patternc.backends.triton.ranges import (
    Slots,
    assign_slots,
    count_lines,
    end_lines,
    shared_rule,
    shared_step,
)
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import Weigher
from patternc.ir.text import print_expr
from patternc.plan.kernel import Kernel, TileKind

IMPORTS = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as HopperDescriptor
"""

_INDENT = 4

_BUFFERS = ["q_buffer", "k_buffer", "v_buffer"]
_BARRIERS = ["filled", "freed"]
_SIZES = ["q_offset", "first_q_tile", "n_q_tiles", "together"]


def kernel_text(kernel: Kernel) -> str:
    """`hopper_kernel` and what it calls."""
    slots = assign_slots(kernel)
    params = [f"p_{param.name}" for param in kernel.attention.params]
    arguments = [f"{name}," for name in params]
    return fill(
        "kernel",
        {
            "params": arguments,
            "arguments": arguments,
            "param_names": [f'"{name}",' for name in params],
            "typed_params": [f"{name}: gl.int32," for name in params],
            "ranges": _range_lines(slots),
            "slots": [f"{name}," for name in _slot_names(slots)],
            "masked": _masked_lines(slots),
            "full": _full_lines(slots),
            "hide": _hide_lines(slots),
            "partitions": [
                *_partition("consume", _consumer(params, 0)),
                *_partition("consume", _consumer(params, 1)),
                *_partition("produce", _producer(params)),
            ],
        },
        __package__,
    )


def launch_text(kernel: Kernel) -> str:
    """What launches it, and says which calls take it."""
    schedule = kernel.schedule
    tiles = f"HOPPER_Q, HOPPER_K = {schedule.block_q}, {schedule.block_k}"
    return fill("launch", {"tiles": [tiles]}, __package__)


def _slot_names(slots: Slots) -> list[str]:
    """What the functions of a step know of the ranges of a query tile."""
    names = ["n_partial", "last_tile"]
    for name, column in zip(slots.names, slots.every, strict=True):
        names += [f"{name}_lo", f"{name}_end"]
        if shared_step(column) is None:
            names.append(f"{name}_step")
        if name.startswith("partial") and shared_rule(slots, column) is None:
            names.append(f"{name}_rule")
    return names


def _range_lines(slots: Slots) -> list[str]:
    """The ranges of a query tile, and how many steps of each kind there are."""
    lines = count_lines(slots)
    cuts = []
    for at, column in enumerate(slots.full):
        name = f"full_{at}"
        step = shared_step(column)
        lo, count = f"{name}_lo", f"{name}_count"
        each = f"{name}_step" if step is None else str(step)
        lines.append(
            f"{name}_cut = cut_tile({lo}, {count}, {each}, n_k, n_k_tiles, BLOCK_K)"
        )
        lines.append(f"{count} -= {name}_cut")
        cuts.append(f"{name}_cut")
    lines += end_lines(slots)
    if not slots.partial:
        lines.append("n_partial = 0 * n_k")
    if not slots.full:
        lines.append("n_full = 0 * n_k")
    return [*lines, f"n_masked = {' + '.join(['n_partial', *cuts])}"]


def _masked_lines(slots: Slots) -> list[str]:
    if not slots.partial:
        return ["return last_tile"]
    lines = tile_lines(slots, TileKind.PARTIAL)
    return [*lines, "return tl.where(t < n_partial, kt, last_tile)"]


def _full_lines(slots: Slots) -> list[str]:
    if not slots.full:
        return ["return last_tile"]
    return [*tile_lines(slots, TileKind.FULL), "return kt"]


def _hide_lines(slots: Slots) -> list[str]:
    """The lines that hide the pairs of a PARTIAL tile that its mask hides."""
    if not slots.rules:
        return []
    weigher = Weigher(slots.kernel, features_of(slots.kernel), False)
    lines = [*rule_lines(slots), "rule = tl.where(t < n_partial, rule, -1)"]
    for at, rule in enumerate(slots.rules):
        lines += [f"if rule == {at}:"]
        body = [f"# {line}" for line in places(slots, rule)]
        body.append(f"# tests {print_expr(rule)}")
        body += test_lines(slots, rule, weigher, _INDENT + 4)
        lines += ["    " + line for line in body]
    return lines


def _consumer(params: list[str], part: int) -> list[str]:
    return [
        *("o_source", "output", "lse", "spoiled"),
        *_BUFFERS,
        "o_buffer",
        *_BARRIERS,
        *("n_q", "n_k"),
        *_SIZES,
        *("first_exact_tile", "n_exact_tiles", "scale_log2"),
        *params,
        str(part),
        *("HEADS", "HEAD_DIM", "VALUE_DIM", "BLOCK_Q", "BLOCK_K", "EXACT_Q", "STAGES"),
    ]


def _producer(params: list[str]) -> list[str]:
    return [
        *("q_source", "k_source", "v_source"),
        *_BUFFERS,
        *_BARRIERS,
        "n_k",
        *_SIZES,
        *params,
        *("HEADS", "GROUP_SIZE", "HEAD_DIM", "VALUE_DIM"),
        *("BLOCK_Q", "BLOCK_K", "STAGES"),
    ]


def _partition(function: str, arguments: list[str]) -> list[str]:
    inner = [f"        {name}," for name in arguments]
    return ["(", f"    {function},", "    (", *inner, "    ),", "),"]
