"""From a kernel to the text of its Gluon kernel and of that kernel's launch.

In: a `Route`. Out: text for a module that
`backends.triton` emits: ranges, masks and names are those of its own kernels. Not its
job: the rest of the module (`backends.triton.emit`), which programs qualify (`route`).
"""

from __future__ import annotations

from dataclasses import replace

from patternc.backends.hopper import block_steps
from patternc.backends.hopper.route import Route, walks
from patternc.backends.triton.features import (
    Features,
    features_of,
    reads_axis,
    reads_of,
)
from patternc.backends.triton.kernels import (
    alignment_lines,
    number_names,
    pointer_names,
)
from patternc.backends.triton.loops import places, rule_lines, test_lines, tile_lines
from patternc.backends.triton.ranges import (
    MASK_NAMES,
    Slots,
    assign_slots,
    count_lines,
    end_lines,
    has_lists,
    hides_pairs,
    shared_rule,
    shared_step,
)
from patternc.backends.triton.shares import packs
from patternc.backends.triton.tables import batch_lines, load_lines
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import Weigher, prepare_lines
from patternc.ir.nodes import Axis, BoolExpr
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
_SIZES = ["q_offset", "first_q_tile", "n_q_tiles", "bits"]


def kernel_text(route: Route) -> str:
    """`hopper_kernel` and what it calls."""
    kernel = route.kernel
    features = features_of(kernel)
    if block_steps.blocks_of(kernel) is not None:
        features = replace(features, lists_data=False, has_stripes=True, tables=())
    params = [f"p_{param.name}" for param in kernel.attention.params]
    addresses = _addresses(kernel, features)
    typed = [(name, "tl.int32") for name in params] + number_names(features)
    names = [*addresses, *(name for name, _ in typed)]
    arguments = [f"{name}," for name in names]
    text = fill(
        "kernel",
        {
            "marks": [f"MARKS: gl.constexpr = {_marks(kernel)}"],
            "walks": [f"WALKS: gl.constexpr = {_walks(kernel)}"],
            "params": arguments,
            "arguments": arguments,
            "param_names": [f'"{name}",' for name, _ in typed],
            "alignment": alignment_lines(features),
            "typed_params": [
                *(f"{name}," for name in addresses),
                *(f"{name}: {kind}," for name, kind in typed),
            ],
            **_step_holes(kernel, features),
            "partitions": [
                *_partition("consume", _consumer(names, 0)),
                *_partition("consume", _consumer(names, 1)),
                *_partition("produce", _producer(names)),
            ],
        },
        __package__,
    )
    if features.has_stripes:
        return text
    cut = "cut_listed" if has_lists(kernel) else "cut"
    return f"{fill(cut, package=__package__)}\n\n{text}"


def _addresses(kernel: Kernel, features: Features) -> list[str]:
    """The pointer arguments behind those of every kernel."""
    if features.has_stripes:
        return block_steps.POINTERS
    return pointer_names(kernel, features)


def _step_holes(kernel: Kernel, features: Features) -> dict[str, list[str]]:
    """What a query tile visits: the text of all that knows of its steps."""
    blocks = block_steps.blocks_of(kernel)
    if blocks is not None:
        return {
            "ranges": block_steps.range_lines(kernel, blocks),
            "slots": [f"{name}," for name in block_steps.SLOTS],
            "masked": block_steps.masked_lines(kernel, blocks),
            "full": block_steps.full_lines(kernel, blocks),
            "hide": block_steps.hide_lines(kernel, blocks),
        }
    slots = assign_slots(kernel, features.lists_data)
    return {
        "ranges": _range_lines(slots),
        "slots": [f"{name}," for name in _slot_names(slots)],
        "masked": _masked_lines(slots),
        "full": _full_lines(slots),
        "hide": _hide_lines(slots, features),
    }


def _walks(kernel: Kernel) -> str:
    """When a program computes tile after tile; else the text has no trace of it."""
    return 'SEQUENCES == "none"' if walks(kernel) else "False"


def _marks(kernel: Kernel) -> str:
    """When it marks what is spoiled: where a second launch comes, as `mark_lines` says."""
    return "True" if hides_pairs(kernel) else 'SEQUENCES != "none"'


def launch_text(route: Route) -> str:
    """What launches it, and says which calls take it."""
    schedule = route.kernel.schedule
    constants = [
        f"HOPPER_Q, HOPPER_K = {schedule.block_q}, {schedule.block_k}",
        "# whether a program computes tile after tile: where all heads see the same",
        f"HOPPER_WALKS = {walks(route.kernel)}",
        "# head size: stages of the loads",
        f"HOPPER_STAGES = {dict(sorted(route.stages.items()))}",
    ]
    text = fill("launch", {"constants": constants}, __package__)
    if not has_lists(route.kernel) or block_steps.blocks_of(route.kernel) is not None:
        return text
    packed = packs(route.kernel, features_of(route.kernel))
    options = ['"PACKED": False,'] if packed else []
    return f"{text}\n\n{fill('listed', {'options': options}, __package__)}"


def later_text() -> str:
    """How a first call has its result before its second launch is compiled."""
    return fill("later", {}, __package__)


def _slot_names(slots: Slots) -> list[str]:
    """What the functions of a step know of the ranges of a query tile."""
    names = ["n_partial", "last_tile"]
    if has_lists(slots.kernel):
        names += ["list_tiles", "first_listed"]
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
        count = f"{name}_count"
        each = f"{name}_step" if step is None else str(step)
        range_ = f"{name}_lo, {count}, {each}"
        if has_lists(slots.kernel):  # one slot of each kind
            lines.append("listed = list_tiles + first_listed + partial_0_count")
            range_ = f"listed, {count}"
        lines.append(f"{name}_cut = cut_tile({range_}, n_k, n_k_tiles, BLOCK_K)")
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
    lines = _listed_tile("n_partial") if has_lists(slots.kernel) else []
    lines = lines or tile_lines(slots, TileKind.PARTIAL)
    return [*lines, "return tl.where(t < n_partial, kt, last_tile)"]


def _full_lines(slots: Slots) -> list[str]:
    if not slots.full:
        return ["return last_tile"]
    if has_lists(slots.kernel):
        return [*_listed_tile("full_0_end", " + n_partial"), "return kt"]
    return [*tile_lines(slots, TileKind.FULL), "return kt"]


def _listed_tile(end: str, first: str = "") -> list[str]:
    """The tile of a step that may lie beyond the last one."""
    return [
        f"listed = list_tiles + first_listed{first} + t",
        f"kt = tl.load(listed, mask=t < {end}, other=0)",
    ]


def _hide_lines(slots: Slots, features: Features) -> list[str]:
    """The lines that hide the pairs of a PARTIAL tile that its mask hides."""
    if not slots.rules:
        return []
    weigher = Weigher(slots.kernel, features, False)
    lines = [*batch_lines(features.tables), *prepare_lines(weigher)]
    lines += [*rule_lines(slots), "rule = tl.where(t < n_partial, rule, -1)"]
    for at, rule in enumerate(slots.rules):
        lines += [f"if rule == {at}:"]
        body = [f"# {line}" for line in places(slots, rule)]
        body.append(f"# tests {print_expr(rule)}")
        inside = replace(weigher, loaded=weigher.loaded.copy())
        body += _key_lines(inside, rule, _INDENT + 4)
        body += test_lines(slots, rule, inside, _INDENT + 4)
        lines += ["    " + line for line in body]
    return lines


def _key_lines(weigher: Weigher, rule: BoolExpr, indent: int) -> list[str]:
    """The lines that load what a mask reads for each key, once for all rows."""
    printer = replace(weigher.printer, names={**MASK_NAMES, Axis.KEY: "one_key"})
    reads = [
        read
        for read in reads_of(rule)
        if reads_axis(read, Axis.KEY)
        and not reads_axis(read, Axis.QUERY)
        and not any(reads_of(index) for index in read.indices)
    ]
    if not reads:
        return []
    loads = load_lines(reads, printer, weigher.loaded, indent)
    names = [weigher.loaded.ints[read] for read in reads]
    spread = [f"{name} = across({name}, LAYOUT)" for name in names]
    return ["one_key = k0 + gl.arange(0, BLOCK_K, layout=ONE_KEY)", *loads, *spread]


def _consumer(names: list[str], part: int) -> list[str]:
    return [
        *("o_source", "output", "lse"),
        *_BUFFERS,
        "o_buffer",
        *_BARRIERS,
        *("sequences", "laps", "filled_tiles", "sections", "n_q", "n_k"),
        *_SIZES,
        "scale_log2",
        *names,
        str(part),
        *("HEADS", "HEAD_DIM", "VALUE_DIM", "BLOCK_Q", "BLOCK_K", "STAGES"),
        "SEQUENCES",
    ]


def _producer(names: list[str]) -> list[str]:
    return [
        *("q_source", "k_source", "v_source"),
        *_BUFFERS,
        *_BARRIERS,
        *("sequences", "laps", "filled_tiles", "sections", "n_k"),
        *_SIZES,
        *names,
        *("HEADS", "GROUP_SIZE", "HEAD_DIM", "VALUE_DIM"),
        *("BLOCK_Q", "BLOCK_K", "STAGES", "SEQUENCES"),
    ]


def _partition(function: str, arguments: list[str]) -> list[str]:
    inner = [f"        {name}," for name in arguments]
    return ["(", f"    {function},", "    (", *inner, "    ),", "),"]
