"""The host's half of the gradients of inputs that scores read.

In: what a program's scores read, in a planned kernel. Out: the text that says which
inputs may be asked for, makes room for what kernels find, and adds that up where an
element is read again. Not its job: launches (`gradients`), the kernels' half (`slopes`
for whole rows and columns, `pairs`).
"""

from __future__ import annotations

from patternc.backends.triton.expr import COLUMNS, TorchPrinter
from patternc.backends.triton.features import AnyRead, Features, reads_axis
from patternc.backends.triton.literals import heads_tensor
from patternc.backends.triton.pairs import (
    PAIR_BYTES,
    PairRead,
    all_pair_reads,
    has_pairs,
    kind_text,
    pair_reads,
)
from patternc.backends.triton.ranges import place
from patternc.backends.triton.slopes import (
    column_reads,
    column_slots,
    row_reads,
    row_slots,
)
from patternc.backends.triton.template import fill
from patternc.ir.nodes import KEY, QUERY, Axis, FloatRead, ScoreCase
from patternc.ir.walk import params_of
from patternc.plan.kernel import Kernel


def has_reads(features: Features) -> bool:
    """Whether some score reads an input for whole rows or columns."""
    return bool(row_slots(features) or column_slots(features))


def input_texts(kernel: Kernel, features: Features, printer: TorchPrinter) -> list[str]:
    """The functions that add up gradients of inputs; none without any."""
    texts = [_of_lines(features, printer)] if has_reads(features) else []
    reads = all_pair_reads(kernel)
    if reads:
        texts += [_pair_constants(reads), fill("pair_parts")]
        texts.append(_of_pairs(reads, features, printer))
    texts += [fill("tokens_at")] if any(read.has_order for read in reads) else []
    own = [read for read in reads if read.has_own_element]
    texts += [fill("add_pairs")] if len(own) < len(reads) else []
    texts += [fill("add_at_pairs")] if own else []
    return [*texts, fill("add_reads")] if texts else []


def wanted_lines(features: Features) -> list[str]:
    """What may be asked for."""
    names = sorted({read.table for read in _score_reads(features)})
    return [
        "for name in wanted:",
        f"    if name not in {tuple(names)!r}:".replace("'", '"'),
        '        raise ValueError(f"{NAME}: no score reads an input `{name}`")',
    ]


def nothing_lines(features: Features) -> list[str]:
    """The gradients of a call without queries or keys."""
    zeros = "{name: torch.zeros_like(inputs[name]) for name in wanted}"
    return [
        "dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))",
        f"return dq, dk, dv, {zeros if features.inputs else '{}'}",
    ]


def room_lines(features: Features) -> list[str]:
    """Room for the gradients of the inputs, and for what rows and columns add."""
    lines: list[str] = []
    if has_reads(features):
        rows, columns = row_slots(features), column_slots(features)
        zeros = "q.new_zeros((slots if wanted else 0, batch, HEADS, n), dtype=wide)"
        lines += [
            "wide = torch.float32",
            "read_gradients = [",
            f"    {zeros}",
            f"    for slots, n in (({rows}, n_q), ({columns}, n_k))",
            "]",
        ]
    if has_reads(features) or has_pairs(features):
        zeros = "torch.zeros_like(inputs[name], dtype=torch.float32)"
        lines += ["totals = {", f"    name: {zeros} for name in wanted", "}"]
    return lines


def found_lines(features: Features) -> list[str]:
    """What `gradients` gives."""
    if not (has_reads(features) or has_pairs(features)):
        return ["return dq, dk, dv, {}"]
    lines = []
    if has_reads(features):
        lines = [
            "if wanted:",
            "    rows, columns = read_gradients",
            "    input_gradients(rows, columns, q_offset, values, inputs, totals)",
        ]
    return [
        *lines,
        "found = {name: x.to(inputs[name].dtype) for name, x in totals.items()}",
        "return dq, dk, dv, found",
    ]


def add_part_lines(features: Features) -> list[str]:
    """Behind the launches of a part of the query tiles."""
    names = ["sums", "part", "first_q_tile", "n_k_tiles", "n_k", "values", "inputs"]
    names.append("totals")
    if features.is_ordered:
        names.append("lists if ordered else None")
    call = [f"        {name}," for name in names]
    return ["if has_pairs:", "    add_pair_sums(", *call, "    )"]


def _score_reads(features: Features) -> list[FloatRead]:
    return [
        read
        for case in features.scores
        for reads in (row_reads(case), column_reads(case), pair_reads(case))
        for read in reads
    ]


def _of_lines(features: Features, printer: TorchPrinter) -> str:
    """`input_gradients`: from rows and keys to the elements that were read there."""
    lines = [
        '"""The gradients of inputs that scores read, from those of rows and keys.',
        "",
        "`rows` is [slots, B, H, n_q] and `columns` [slots, B, H, n_k]: of each element",
        "that a head reads. They are added to `totals`.",
        '"""',
        "device = rows.device",
        "b = torch.arange(rows.shape[1], device=device)[:, None, None]",
        "q = torch.arange(rows.shape[3], device=device) + q_offset",
        "k = torch.arange(columns.shape[3], device=device)",
        "length = torch.full((), columns.shape[3], device=device)",
        *_names(features),
    ]
    for case in features.scores:
        lines += [f"# {place(case.span)}", *_case_lines(case, printer)]
    head = "def input_gradients(rows, columns, q_offset, values, inputs, totals):"
    return _function(head, lines)


def _function(head: str, lines: list[str]) -> str:
    return "\n".join([head, *(f"    {line}" if line else "" for line in lines), ""])


def _names(features: Features) -> list[str]:
    """The inputs and run-time parameters that indices may read."""
    reads: list[AnyRead] = list(_score_reads(features))
    names = {
        name for read in reads for index in read.indices for name in params_of(index)
    }
    return [
        *(f't_{item.name} = inputs["{item.name}"]' for item in features.tables),
        *(
            f'p_{name} = torch.full((), values["{name}"], device=device)'
            for name in sorted(names)
        ),
    ]


def _case_lines(case: ScoreCase, printer: TorchPrinter) -> list[str]:
    lines = [*heads_tensor("at", case.heads), "h = at[:, None]"]
    for source, reads, axis in (
        ("rows", row_reads(case), Axis.QUERY),
        ("columns", column_reads(case), Axis.KEY),
    ):
        for slot, read in enumerate(reads):
            lines += _read_lines(read, f"{source}[{slot}][:, h[:, 0]]", axis, printer)
    return lines


def _read_lines(
    read: FloatRead, gradient: str, axis: Axis, printer: TorchPrinter
) -> list[str]:
    if not reads_axis(read, axis):
        gradient += ".sum(2, keepdim=True)"
    places, names = _place_lines(read, printer)
    call = ", ".join([f'totals["{read.table}"]', "gradient", "b", *names])
    inner = [f"gradient = {gradient}", *places, f"add_reads({call})"]
    return [f'if "{read.table}" in totals:', *("    " + line for line in inner)]


def _place_lines(
    read: FloatRead, printer: TorchPrinter, skip: tuple[object, ...] = ()
) -> tuple[list[str], list[str]]:
    """The lines that compute the indices that are not to be skipped, their names."""
    lines, names = [], []
    for at, index in enumerate(read.indices):
        if index not in skip:
            lines += printer.assign(f"place_{at}", index, 8)
            names.append(f"place_{at}")
    return lines, names


def _pair_constants(reads: list[PairRead]) -> str:
    kinds = [kind_text(read.sums) for read in reads]
    one = [f"PAIR_SUMS = ({kinds[0]},)"]
    several = ["PAIR_SUMS = (", *(f"    {kind}," for kind in kinds), ")"]
    return "\n".join(
        [
            "# What a tile adds up for each element that is read at pairs: diagonals, or",
            "# rows and columns of blocks, or of squares and twice the side of one.",
            *(one if len(kinds) == 1 else several),
            f"PAIR_BYTES = {PAIR_BYTES}",
            "",
        ]
    )


def _of_pairs(reads: list[PairRead], features: Features, printer: TorchPrinter) -> str:
    """`add_pair_sums`: from the sums of tiles to the elements that were read there."""
    lists = ", lists" if features.is_ordered else ""
    lines = [
        '"""Add what the tiles of a part have stored to the gradients of inputs."""',
        "tile, _, first_b, _ = part",
        "first_tile = first_q_tile + tile",
        "device = sums[0].device",
        "length = torch.full((), n_k, device=device)",
        *_names(features),
    ]
    for at, read in enumerate(reads):
        lines += [
            f"# {place(read.case.span)}",
            *_pair_lines(at, read, printer),
        ]
    arguments = "sums, part, first_q_tile, n_k_tiles, n_k, values, inputs, totals"
    head = f"def add_pair_sums({arguments}{lists}):"
    if len(head) > COLUMNS:
        head = f"def add_pair_sums(\n    {arguments}{lists}\n):"
    return _function(head, lines)


def _pair_lines(at: int, own: PairRead, printer: TorchPrinter) -> list[str]:
    shared = "False" if own.reads_data else "len(total) == 1"
    if own.has_order and not own.reads_data:
        shared += " and lists is None"
    lines = [
        *heads_tensor("at", own.case.heads),
        "h = at[:, None, None]",
        f'total = totals["{own.read.table}"]',
        f"shared = {shared}",
        f"own = sums[{at}] if len(at) == HEADS else sums[{at}][:, at]",
        f"given = (own, PAIR_SUMS[{at}], first_tile, n_k_tiles)",
        "q, k, gradient = gathered_sums(*given, shared)",
        "b = first_b + torch.arange(len(gradient), device=device)[:, None, None, None]",
    ]
    if own.has_order:
        lines += [
            "if lists is not None:",
            "    q, k = tokens_at(q, k, lists, b, h)",
        ]
    elif not own.reads_head:
        lines.append("gradient = gradient.sum(1, keepdim=True)")
    skip = (QUERY, KEY) if own.has_own_element else ()
    places, names = _place_lines(own.read, printer, skip)
    if own.has_own_element:
        axes = [str(own.read.indices.index(index)) for index in (QUERY, KEY)]
        first = ["total", "gradient", "b", "first_tile * BLOCK_Q", *axes]
        call = f"add_at_pairs({', '.join([*first, *names])})"
    else:
        call = f"add_pairs({', '.join(['total', 'gradient', 'b', *names])})"
    lines += [*places, call]
    return [f'if "{own.read.table}" in totals:', *("    " + line for line in lines)]
