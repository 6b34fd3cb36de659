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
from collections.abc import Mapping, Sequence

from patternc.analysis.interval import Box
from patternc.backends.triton import checks_text
from patternc.backends.triton.bounds import BoundsPrinter
from patternc.backends.triton.expr import (
    Printer,
    TorchPrinter,
    calls_floor_helpers,
    kernel_box,
)
from patternc.backends.triton.ranges import (
    Slots,
    assign_slots,
    has_lists,
    heads_condition,
    is_listed,
    loop_lines,
    place,
    printable,
    range_lines,
)
from patternc.backends.triton.refusal import refusal
from patternc.backends.triton.template import fill
from patternc.diagnostics import PatternError
from patternc.ir.nodes import Axis
from patternc.ir.text import print_expr, print_heads
from patternc.ir.walk import axes_of
from patternc.plan.kernel import Kernel, KeyRange, Schedule, TileCover

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POSITIONS = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}

_GLOSSARY = """\
b h qt kt     batch, query head, query tile, key tile
q k           absolute positions; the first query stands at q_offset
q0 k0         the first position of a tile
n_q n_k       numbers of queries and of keys
s p           logits in units of the tile's product, and weights
top total     greatest logit and sum of weights of each row so far
full, partial tiles where every pair is visible, or only some
p_...         a run-time parameter of the pattern"""

BEST_STAGES = {64: 2, 128: 3}
"""The stages that were fastest on an H200, by head size: the sizes that can run."""

Value = str | int | None | Mapping[str, "Value"] | Sequence["Value"]


def emit(kernel: Kernel, pattern_text: str, name: str) -> str:
    """The text of a kernel module, formatted, ending in a newline.

    `pattern_text` is what METADATA's hash is of and what the header shows; `name` is
    the attention's name. Raises `ValueError` if `name` or a run-time parameter is not
    an ASCII identifier, `PatternError` for a program that has no kernel yet.
    """
    if (problem := refusal(kernel)) is not None:
        raise PatternError([problem])
    for word in (name, *(param.name for param in kernel.attention.params)):
        if not _IDENTIFIER.fullmatch(word):
            raise ValueError(f"not an identifier: {word!r}")
    slots = assign_slots(kernel)
    forward = _forward(slots)
    parts = [
        _header(pattern_text, name),
        _imports(),
        _constants(kernel, pattern_text, name),
        checks_text.body(),
        fill("floor") if calls_floor_helpers(forward) else "",
        forward,
        _launch(kernel),
        *([_listed(kernel), fill("lists")] if has_lists(kernel) else []),
        _reference(kernel),
    ]
    return "\n\n".join(part for part in parts if part)


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


def _imports() -> str:
    """Standard library first. Those of the checks are read from their own file."""
    lines = sorted({"import contextlib", "import math", *checks_text.imports()})
    plain = [line for line in lines if line.startswith("import ")]
    from_lines = [line for line in lines if line.startswith("from ")]
    other = [
        "import torch",
        "import triton",
        "import triton.language as tl",
        "from triton.tools.tensor_descriptor import TensorDescriptor",
    ]
    return "\n".join([*plain, *from_lines, "", *other])


def _constants(kernel: Kernel, pattern_text: str, name: str) -> str:
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
            f"WARPS = {schedule.warps}",
            f"STAGES = {_stages(schedule)}  # by head size",
            f"HEAD_DIMS = {tuple(BEST_STAGES)}",
            "DTYPES = (torch.bfloat16, torch.float16, torch.float32)",
            *literal("PARAMS", defaults),
            *literal("METADATA", metadata),
            "",
        ]
    )


def _stages(schedule: Schedule) -> dict[int, int]:
    """Key tiles in flight by head size: those asked for, or those measured best."""
    if schedule.stages is None:
        return BEST_STAGES
    return dict.fromkeys(BEST_STAGES, schedule.stages)


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


def literal(target: str, value: Value) -> list[str]:
    """An assignment of data, one item a line, as a formatter leaves it."""
    return _literal(f"{target} = ", value, "", "")


def _literal(head: str, value: Value, indent: str, tail: str) -> list[str]:
    if isinstance(value, str):
        return [f"{indent}{head}{_quoted(value)}{tail}"]
    if value is None or isinstance(value, int):
        return [f"{indent}{head}{value}{tail}"]
    is_map = isinstance(value, Mapping)
    opening, closing = "{}" if is_map else "[]"
    if not value:
        return [f"{indent}{head}{opening}{closing}{tail}"]
    lines = [f"{indent}{head}{opening}"]
    if isinstance(value, Mapping):
        for key, item in value.items():
            lines += _literal(f"{_quoted(key)}: ", item, indent + "    ", ",")
    else:
        for item in value:
            lines += _literal("", item, indent + "    ", ",")
    return [*lines, f"{indent}{closing}{tail}"]


def _quoted(text: str) -> str:
    """A string literal in double quotes, ASCII only."""
    inner = text.encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{inner}"'


def _forward(slots: Slots) -> str:
    kernel = slots.kernel
    names = [f"p_{param.name}" for param in kernel.attention.params]
    lists = ["list_tiles", "list_first", "list_partial", "list_full"]
    return fill(
        "forward",
        {
            "param_names": [f'"{name}",' for name in names],
            "params": [f"{name}: tl.int32," for name in names],
            "list_params": [f"{x}," for x in lists] if has_lists(kernel) else [],
            "ranges": range_lines(slots),
            "loops": loop_lines(slots),
        },
    )


def _launch(kernel: Kernel) -> str:
    listed = has_lists(kernel)
    call = "lists = tile_lists(n_q, n_k, q_offset, values, q.device)"
    return fill(
        "launch",
        {
            "tile_lists": [call] if listed else [],
            "list_arguments": ["*lists,"] if listed else [],
        },
    )


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
        named += _heads_literal(f"HEADS_{at}", cover.heads)
        table.append(f"    (HEADS_{at}, {reads_head}, possible_{at}),")
    return "\n\n".join([*parts, "\n".join([*named, *table, "]", ""])])


def _heads_literal(target: str, heads: Sequence[int]) -> list[str]:
    """Heads as a range if they are one, else one a line."""
    step = heads[1] - heads[0] if len(heads) > 1 else 1
    if tuple(heads) == tuple(range(heads[0], heads[-1] + 1, step)):
        extra = "" if step == 1 else f", {step}"
        return [f"{target} = range({heads[0]}, {heads[-1] + 1}{extra})"]
    return literal(target, tuple(heads))


def _reference(kernel: Kernel) -> str:
    """The dense definition, with every mask as PyTorch text."""
    names = [f"p_{param.name}" for param in kernel.attention.params]
    printer = TorchPrinter(_POSITIONS, _box(kernel))
    heads = Printer({Axis.HEAD: "head"}, _box(kernel))
    last = len(kernel.covers) - 1
    conditions: list[str] = []
    masks: list[str] = []
    for at, cover in enumerate(kernel.covers):
        indent = 4 if last else 0
        if at < last:
            members = heads_condition(cover.heads)
            conditions += heads.assign(f"in_group_{at}", members, 4)
        if last:
            word = "else" if at == last else f"{'elif' if at else 'if'} in_group_{at}"
            masks.append(f"{word}:")
        keep = printer.assign("keep", cover.mask, 4 + indent)
        masks += [" " * indent + line for line in (f"# {place(cover.span)}", *keep)]
    return fill(
        "reference",
        {
            "params": [f"{name}," for name in names],
            "tensors": [f"{x} = torch.tensor({x}, device=device)" for x in names],
            "masks": conditions + masks,
        },
    )


def _box(kernel: Kernel) -> Box:
    attention, schedule = kernel.attention, kernel.schedule
    names = tuple(param.name for param in attention.params)
    return kernel_box(attention.heads, schedule.block_q, schedule.block_k, names)
