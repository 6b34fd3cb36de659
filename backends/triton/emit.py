"""From a kernel to the text of a Python module.

In: a planned kernel and the pattern's text. Out: one module that imports torch and
triton only: kernel, `forward`, `reference`, METADATA; the same bytes for the same
input. Not its job: writing or importing it (`load`).

What a user wrote appears in comments alone, one line each, with control characters
escaped. Everything else is made of the compiler's own names and numbers.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from dataclasses import replace

from patternc.analysis.interval import Box
from patternc.backends.declared import declarations
from patternc.backends.hopper import emit as gluon
from patternc.backends.hopper.route import Route
from patternc.backends.triton import profiles, shared_text
from patternc.backends.triton.backward import backward_texts
from patternc.backends.triton.bounds import BoundsPrinter
from patternc.backends.triton.dense import dense_text, mask_lines
from patternc.backends.triton.estimate import plan_texts
from patternc.backends.triton.expr import (
    TorchPrinter,
    calls_floor_helpers,
    kernel_box,
)
from patternc.backends.triton.features import Features, features_of
from patternc.backends.triton.finish import finish_text
from patternc.backends.triton.fused import fused_of
from patternc.backends.triton.gradients import gradients_text
from patternc.backends.triton.kernels import device_functions, kernel_text
from patternc.backends.triton.launches import (
    checks_called,
    launch_text,
    sequence_lists_text,
    whole_only,
)
from patternc.backends.triton.literals import Value, heads_literal, literal
from patternc.backends.triton.plan_text import plan_function
from patternc.backends.triton.ranges import (
    has_lists,
    is_listed,
    place,
    printable,
)
from patternc.backends.triton.shares import (
    combine_text,
    fits_packed_text,
    packs,
    shares_text,
)
from patternc.backends.triton.stripe_gradients import has_gradients
from patternc.backends.triton.stripes import (
    stripe_functions,
    stripe_lists,
    striped,
    without_stripes,
)
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Axis
from patternc.ir.text import print_expr, print_heads
from patternc.ir.walk import axes_of
from patternc.plan.choose import bytes_beside, launches
from patternc.plan.kernel import Kernel, KeyRange, TileCover
from patternc.plan.reverse import reverse

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POSITIONS = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}

_GLOSSARY = """\
b h qt kt     batch, query head, query tile, key tile
q k           absolute positions; the first query stands at q_offset
q0 k0         the first position of a tile
n_q n_k       numbers of queries and of keys
s p           logits in units of the tile's product, and weights
top total     greatest exponent and sum of weights of each row so far
full, partial tiles where every pair is visible, or only some
p_...         a run-time parameter of the pattern"""

LARGEST_DIM = 256
"""The greatest D and D_v of a kernel: that many columns TMA can load in one box."""

DELTA_ROWS = 64


def emit(
    kernel: Kernel, pattern_text: str, name: str, hopper: Route | None = None
) -> str:
    """The text of a kernel module, formatted, ending in a newline.

    `pattern_text` is what METADATA's hash is of and what the header shows; `name` is
    the attention's name; `hopper` says of the kernel for Hopper, if the module gets
    one. Raises `ValueError` if `name` or a run-time parameter is not
    an ASCII identifier.
    """
    for word in (name, *(param.name for param in kernel.attention.params)):
        if not _IDENTIFIER.fullmatch(word):
            raise ValueError(f"not an identifier: {word!r}")
    features = features_of(kernel)
    shared = [*checks_called(kernel.attention, features), "weighted_sum"]
    stripes = striped(kernel)
    other, ahead = kernel, features
    if stripes is not None:
        other, ahead = without_stripes(kernel, features, stripes)
    device = device_functions(kernel, ahead)
    kernels = [kernel_text(other, ahead, False, stripes)]
    if stripes is not None:
        kernels = [*stripe_functions(kernel, features, stripes), *kernels]
    if features.is_ordered:
        kernels.append(kernel_text(other, ahead, True, stripes))
    kernels.append(combine_text(kernel, features))
    back, behind = kernel, features
    own = stripes if has_gradients(features) else None
    if own is not None:
        back, behind = other, ahead
    reversed_ = reverse(back, kernel.schedule)
    kernels += backward_texts(back, reversed_, behind, own)
    plans = _plans(kernel) if kernel.attention.selections else []
    listed = listing(back, reversed_)
    printer = TorchPrinter(_POSITIONS, _box(kernel))
    parts = [
        _header(pattern_text, name),
        _imports(shared, behind, hopper is not None),
        _constants(kernel, listed, behind, pattern_text, name),
        shared_text.body(shared),
        fill("floor") if calls_floor_helpers("".join((*kernels, *plans))) else "",
        *device,
        *kernels,
        *([gluon.kernel_text(hopper)] if hopper else []),
        launch_text(other, ahead, hopper is not None),
        fill("compile"),
        *([gluon.launch_text(hopper)] if hopper else []),
        gluon.later_text() if hopper else "",
        fill("captured") if _keeps(kernel, behind, stripes is not None) else "",
        *(stripe_lists(kernel, stripes, own is not None) if stripes else []),
        shares_text(kernel),
        fits_packed_text() if packs(kernel, features) else "",
        gradients_text(back, reversed_, behind, printer, own),
        finish_text(features, printer),
        *_lists(listed, behind),
        *plans,
        _reference(kernel, features),
    ]
    return "\n\n".join(part for part in parts if part)


def _keeps(kernel: Kernel, features: Features, has_stripes: bool) -> bool:
    """Whether a module keeps what follows from tables, or makes tables."""
    return has_stripes or features.lists_data or bool(kernel.attention.selections)


def _plans(kernel: Kernel) -> list[str]:
    """What estimates and selects, and `plan` where nothing else is needed for it."""
    attention, box = kernel.attention, _box(kernel)
    fused = fused_of(attention)
    function = plan_function(attention, fused, box)
    return [*plan_texts(fused, box), *([] if function is None else [function])]


def listing(kernel: Kernel, reversed_: Kernel) -> Kernel:
    """The kernel with lists for every cover that some kernel lists the tiles of."""
    covers = tuple(
        replace(cover, ranges=None) if is_listed(other) else cover
        for cover, other in zip(kernel.covers, reversed_.covers, strict=True)
    )
    return replace(kernel, covers=covers)


def _version() -> str:
    # By name: the package's own module is above this layer.
    return str(importlib.import_module("patternc").__version__)


def _header(pattern_text: str, name: str) -> str:
    """The docstring, a glossary and the pattern as comments."""
    about = f'"""Attention `{name}`, compiled by patternc {_version()}. Do not edit."""'
    comments = ["Names:", *("  " + line for line in _GLOSSARY.splitlines()), ""]
    comments.append("The pattern:")
    # Only "\n" ends a line here: all else that ends one elsewhere is escaped.
    comments += ["  | " + printable(line) for line in pattern_text.rstrip().split("\n")]
    return "\n".join([about, "", *(f"# {line}".rstrip() for line in comments)])


_STANDARD = (
    "from concurrent.futures import ThreadPoolExecutor",
    "import contextlib",
    "import functools",
    "import math",
    "import threading",
    "from types import SimpleNamespace",
)


def _imports(shared: list[str], features: Features, has_hopper: bool) -> str:
    """Standard library first. Those of shared functions are read from their files."""
    needed = {*_STANDARD, *shared_text.imports(shared)}
    if features.lists_data:
        needed.add("import itertools")
    if has_hopper:
        needed.add("import ctypes")
    lines = sorted(needed)
    plain = [line for line in lines if line.startswith("import ")]
    from_lines = [line for line in lines if line.startswith("from ")]
    other = [
        "import torch",
        "import triton",
        "import triton.language as tl",
        "from triton.tools.tensor_descriptor import TensorDescriptor",
    ]
    other += gluon.IMPORTS.splitlines() if has_hopper else []
    return "\n".join([*plain, *from_lines, "", *other])


def _constants(
    kernel: Kernel, listing: Kernel, features: Features, pattern_text: str, name: str
) -> str:
    attention, schedule = kernel.attention, kernel.schedule
    defaults = {param.name: param.default for param in attention.params}
    metadata: dict[str, Value] = {
        "name": name,
        "patternc": _version(),
        "source_sha256": _digest(pattern_text),
        "heads": attention.heads,
        "kv_heads": attention.kv_heads,
        "params": defaults,
        "schedule": {
            "block_q": schedule.block_q,
            "block_k": schedule.block_k,
            "warps": schedule.warps,
            "stages": schedule.stages,
        },
        "groups": [_group(cover) for cover in kernel.covers],
    }
    return "\n".join(
        [
            *literal("NAME", name),
            f"HEADS, KV_HEADS = {attention.heads}, {attention.kv_heads}",
            f"BLOCK_Q, BLOCK_K = {schedule.block_q}, {schedule.block_k}",
            f"LARGEST_DIM = {LARGEST_DIM}",
            *_launches(kernel),
            f"DELTA_ROWS = {DELTA_ROWS}  # of a program of `delta_kernel`",
            "DTYPES = (torch.bfloat16, torch.float16, torch.float32)",
            *literal("PARAMS", defaults),
            *_input_constants(listing, features),
            *literal("METADATA", metadata),
            "",
        ]
    )


def _input_constants(kernel: Kernel, features: Features) -> list[str]:
    """What is declared, what the kernel reads of it, and what tile lists follow."""
    lines: list[str] = []
    if features.inputs:
        lines += literal("INPUTS", declarations(kernel.attention))
        lines += literal("TABLES", [item.name for item in features.tables])
        lines.append("SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)")
    if features.lists_data:
        lines += literal("LIST_INPUTS", profiles.list_inputs(kernel))
    return lines


def _launches(kernel: Kernel) -> list[str]:
    """Warps and stages of each kernel; see `plan.choose`."""
    lines = ["# (kernel, columns of a tile, bytes of an element): (warps, stages)"]
    lines.append("LAUNCHES = {")
    schedule = kernel.schedule
    beside = bytes_beside(kernel)
    found = launches(schedule, beside=beside)
    for (work, columns, itemsize), launch in found.items():
        lines.append(f'    ("{work}", {columns}, {itemsize}): {launch},')
    return [*lines, "}"]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _group(cover: TileCover) -> dict[str, Value]:
    group: dict[str, Value] = {
        "heads": print_heads(cover.heads),
        "mask": print_expr(cover.mask),
    }
    if cover.ranges is None:
        group["lists"] = cover.reason
    else:
        group["ranges"] = [_range_text(part) for part in cover.ranges]
    return group


def _range_text(part: KeyRange) -> str:
    step = "" if part.step == 1 else f", {part.step}"
    bounds = f"{print_expr(part.lo)}, {print_expr(part.hi)}{step}"
    guard = print_expr(part.guard)
    condition = "" if guard == "full" else f" if {guard}"
    return f"{part.kind.value}: kt in range({bounds}){condition}"


def _lists(kernel: Kernel, features: Features) -> list[str]:
    """What builds tile lists, if any are needed, and reads inputs on the host."""
    read = [fill("read")] if features.tables or features.lists_data else []
    if not features.lists_data:
        lists = [_listed(kernel), fill("lists")] if has_lists(kernel) else []
        many = [] if whole_only(kernel) or not lists else [sequence_lists_text(False)]
        return [*lists, *many, *read]
    judges = [
        profiles.judge_function(at, cover, _box(kernel), profiles.is_chosen(kernel))
        for at, cover in profiles.needed(kernel)
    ]
    lines = ["JUDGES = {"]
    lines += [f"    {at}: judge_{at}," for at, _ in profiles.needed(kernel)]
    lines += ["}", *literal("LISTED", profiles.cover_table(kernel, False))]
    lines += literal("ORDERED", profiles.cover_table(kernel, True))
    orders = fill("order_rows").splitlines() if features.is_ordered else []
    texts = [*judges, "\n".join([*lines, ""]), *read]
    texts += [fill("orders")] if features.is_ordered else []
    build = "state_lists" if profiles.is_chosen(kernel) else "waiting_lists"
    texts += [fill("profile"), fill(build, {"orders": orders})]
    return [*texts, *([] if whole_only(kernel) else [sequence_lists_text(True)])]


def _listed(kernel: Kernel) -> str:
    """The interval form of each mask whose tiles are listed, and their table."""
    params = kernel.attention.params
    printer = BoundsPrinter(_POSITIONS, _box(kernel))
    parts, named, table = [], [], ["LISTED = ["]
    for at, cover in enumerate(kernel.covers):
        if not is_listed(cover):
            continue
        body = [f"# {place(cover.span)}", "h, length = exactly(h), exactly(length)"]
        body += [f'p_{x.name} = exactly(values["{x.name}"])' for x in params]
        body += [*printer.assign("seen", cover.mask, 4), "return seen"]
        about = (
            '"""Whether the mask may be true, and may be false, in boxes of pairs."""'
        )
        lines = [f"def possible_{at}(q, k, h, length, values):"]
        lines += [f"    {line}" for line in (about, *body)]
        parts.append("\n".join(lines) + "\n")
        reads_head = Axis.HEAD in axes_of(cover.mask)
        named += heads_literal(f"HEADS_{at}", cover.heads)
        table.append(f"    (HEADS_{at}, {reads_head}, possible_{at}),")
    return "\n\n".join([*parts, "\n".join([*named, *table, "]", ""])])


def _reference(kernel: Kernel, features: Features) -> str:
    """The dense definition, with every mask as PyTorch text."""
    printer = TorchPrinter(_POSITIONS, _box(kernel))
    if not features.is_plain:
        return dense_text(kernel, features, printer)
    names = [f"p_{param.name}" for param in kernel.attention.params]
    return fill(
        "reference",
        {
            "params": [f"{name}," for name in names],
            "tensors": [f"{x} = torch.tensor({x}, device=device)" for x in names],
            "masks": mask_lines(kernel, printer),
        },
    )


def _box(kernel: Kernel) -> Box:
    attention, schedule = kernel.attention, kernel.schedule
    names = tuple(param.name for param in attention.params)
    return kernel_box(attention.heads, schedule.block_q, schedule.block_k, names)
