"""The host's half of the backward pass.

In: a planned kernel, its reverse and what it does beside masks. Out: the text of
`gradients`, of the lists turned round and of what adds up the gradients of inputs. Not
its job: the kernels (`backward`), sinks and outputs (`finish`).
"""

from __future__ import annotations

from patternc.backends.triton.expr import TorchPrinter
from patternc.backends.triton.features import (
    AnyRead,
    Features,
    reads_axis,
)
from patternc.backends.triton.launches import (
    access_lines,
    checked_lines,
    list_arguments,
    more_lines,
    number_arguments,
    sequence_lines,
    start_lines,
    tile_list_lines,
    whole_only,
)
from patternc.backends.triton.literals import heads_tensor
from patternc.backends.triton.profiles import is_chosen
from patternc.backends.triton.ranges import has_lists, hides_pairs, place
from patternc.backends.triton.slopes import (
    column_reads,
    column_slots,
    pair_inputs,
    row_reads,
    row_slots,
)
from patternc.backends.triton.stripes import Striped
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Axis, FloatRead, ScoreCase
from patternc.ir.walk import params_of
from patternc.plan.kernel import Kernel


def gradients_text(
    kernel: Kernel,
    reversed_: Kernel,
    features: Features,
    printer: TorchPrinter,
    stripes: Striped | None = None,
) -> str:
    """`gradients`, its launcher and what they call."""
    given = ", inputs" if features.inputs else ""
    reads = has_reads(features)
    own = ", read_gradients" if reads else ""
    call = "launch_gradients("
    inner = "q, k, v, out, lse, d_out, d_lse, dq, dk, dv"
    inner += f", scale, q_offset, values, sequences{given}{own}"
    arguments = [f"    {item}," for item in inner.split(", ")]
    text = fill(
        "gradients",
        {
            "values": checked_lines(features),
            "more": more_lines(kernel.attention, features),
            "sequences": sequence_lines(gradient_whole_only(kernel, features)),
            "wanted": _wanted(features),
            "nothing": _nothing(features),
            "zero_reads": _zero_reads(features) if reads else [],
            "launch": [call, *arguments, ")"],
            "found": _found(features),
            "launch_head": [f"def {call}", *arguments, "):"],
            "access": access_lines(features, "q, k, v, d_out"),
            "tile_lists": _lists(kernel, reversed_, features, stripes),
            "members": _members(features),
            "numbers": number_arguments(features),
            **_calls(kernel, reversed_, features, stripes),
        },
    )
    texts = [text]
    if has_lists(reversed_) or features.is_ordered:
        is_state = features.lists_data and is_chosen(kernel, reversed_)
        texts.append(fill("reverse_states" if is_state else "reverse_lists"))
    if reads:
        texts += [_scatter(features, printer), fill("add_reads")]
    return "\n\n".join(texts)


def has_reads(features: Features) -> bool:
    """Whether some score reads an input whose gradient has a kernel."""
    return bool(row_slots(features) or column_slots(features))


def gradient_whole_only(kernel: Kernel, features: Features) -> str:
    """Why there are no gradients of sequences; nothing if there are."""
    if reason := whole_only(kernel):
        return reason
    if features.has_epilogue:
        return "the rows of a sink or an output clause have no sequences of their own"
    return ""


def _wanted(features: Features) -> list[str]:
    """What may be asked for: a pair's own element may not."""
    names = sorted({read.table for read in _score_reads(features)})
    lines = [
        "for name in wanted:",
        f"    if name not in {tuple(names)!r}:".replace("'", '"'),
        '        raise ValueError(f"{NAME}: no score reads an input `{name}`")',
    ]
    refused = sorted(pair_inputs(features.scores))
    if refused:
        lines += [
            f"    if name in {tuple(refused)!r}:".replace("'", '"'),
            "        raise ValueError(",
            '            f"{NAME}: `{name}`: expected no gradient to be asked for, as"',
            '            " it is read at pairs of a query and a key"',
            "        )",
        ]
    return lines


def _score_reads(features: Features) -> list[FloatRead]:
    return [
        read
        for case in features.scores
        for reads in (row_reads(case), column_reads(case))
        for read in reads
    ] + list(pair_inputs(features.scores).values())


def _nothing(features: Features) -> list[str]:
    zeros = "{name: torch.zeros_like(inputs[name]) for name in wanted}"
    return [
        "dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))",
        f"return dq, dk, dv, {zeros if features.inputs else '{}'}",
    ]


def _zero_reads(features: Features) -> list[str]:
    rows, columns = row_slots(features), column_slots(features)
    return [
        "read_gradients = [",
        "    q.new_zeros((slots if wanted else 0, batch, HEADS, n), dtype=torch.float32)",
        f"    for slots, n in (({rows}, n_q), ({columns}, n_k))",
        "]",
    ]


def _found(features: Features) -> list[str]:
    if not has_reads(features):
        return ["return dq, dk, dv, {}"]
    return [
        "found = {}",
        "if wanted:",
        "    rows, columns = read_gradients",
        "    found = input_gradients(rows, columns, q_offset, values, inputs, wanted)",
        "return dq, dk, dv, found",
    ]


def _lists(
    kernel: Kernel, reversed_: Kernel, features: Features, stripes: Striped | None
) -> list[str]:
    own = has_lists(kernel) or has_lists(reversed_) or features.is_ordered
    may_be_many = not gradient_whole_only(kernel, features)
    lines = tile_list_lines(features, own, may_be_many)
    if has_lists(reversed_) or features.is_ordered:
        count = "n_k_tiles * BLOCK_K" if may_be_many else "n_k"
        lines.append(f"turned = reversed_lists(lists, first_q_tile, {count})")
    if stripes is not None:
        lines.append("key_stripes = stripes[:9]")
    if stripes is not None and stripes.has_diagonals:
        lines[-1] = "key_stripes = key_stripes_of(stripes, n_q, n_k, q_offset)"
    if stripes is not None and stripes.blocks is not None:
        lines += [
            "given = (n_q, n_k, q_offset, values, pointers, q.device)",
            "key_stripes = (*key_stripes[:7], *blocks_of(*given, reverse=True))",
        ]
    return lines


def _members(features: Features) -> list[str]:
    """How many query heads add up in one program."""
    if not features.is_ordered:
        return ["members = HEADS // KV_HEADS"]
    return [
        "# Heads of one key/value head may have orders of their own: each its gradient.",
        "members = 1 if ordered else HEADS // KV_HEADS",
    ]


def _calls(
    kernel: Kernel, reversed_: Kernel, features: Features, stripes: Striped | None
) -> dict[str, list[str]]:
    """How the kernels are started."""
    tables = ["*pointers,"] if features.tables else []
    tables += ["k,", "v,"] if stripes is not None else []
    row, column = row_slots(features), column_slots(features)

    def arguments(
        outputs: list[str],
        slots: int,
        at: int,
        lists: list[str],
        last: tuple[str, ...] = (),
    ) -> list[str]:
        reads = [f"read_gradients[{at}],"] if slots else []
        inner = [
            "*sources,",
            *outputs,
            *reads,
            *lists,
            *tables,
            "*numbers,",
            *last,
        ]
        return ["arguments = (", *("    " + line for line in inner), ")"]

    def start(name: str, extra: list[str], slots: int, hides: bool) -> list[str]:
        work = name.removesuffix("_gradient").replace("column", "key")
        reads = [f'"READ_GRADIENTS": read_gradients[{slots - 1}].numel() > 0,']
        inner = ["**options,", *(reads if slots else []), *extra]
        inner.append('"num_warps": warps,')
        kernel_name = f"{name}_kernel"
        lines = [f"kernel = {kernel_name}"]
        if features.is_ordered:
            lines = [f"kernel = ordered_{kernel_name} if ordered else {kernel_name}"]
        lines.append(f'warps, stages = launch_of("{work}", columns, q, access)')
        lines += ["more = {", *("    " + line for line in inner), "}"]
        return [
            *lines,
            "first = (kernel, programs, arguments, more, stages, kind)",
            "again = exact_of(first)",
            *start_lines(hides or stripes is not None),
        ]

    ordered = features.is_ordered
    own = list_arguments(features, "lists") if has_lists(kernel) or ordered else []
    turned = (
        list_arguments(features, "turned") if has_lists(reversed_) or ordered else []
    )
    if stripes is not None:
        own, turned = [*own, "*stripes[:9],"], [*turned, "*key_stripes,"]
    parts = [
        "programs = n_k_tiles * (HEADS // members) * batch",
        *arguments(["dk_parts,", "dv_parts,"], column, 1, turned),
        *start(
            "key_gradient",
            ['"MEMBERS": members,'],
            2 if column else 0,
            hides_pairs(reversed_),
        ),
    ]
    return {
        "query_gradient": [
            "programs = n_q_tiles * HEADS * batch",
            *arguments(["dq,"], row, 0, own),
            *start("query_gradient", [], 1 if row else 0, hides_pairs(kernel)),
        ],
        "key_gradient": _with_columns(
            parts,
            [
                "programs = n_k_tiles * KV_HEADS * batch",
                "spoiled = q.new_empty(programs, dtype=torch.int8)",
                "of_columns = (*stripes[:6], stripes[12], *stripes[7:9])",
                "for member in range(HEADS // KV_HEADS):",
                *(
                    f"    {line}"
                    for line in [
                        *arguments(
                            ["spoiled,", "dk_parts,", "dv_parts,"],
                            0,
                            1,
                            [*turned[:-1], "*of_columns,"],
                            ("member,",),
                        ),
                        *start("column_gradient", [], 0, True),
                    ]
                ),
            ],
        )
        if stripes is not None and stripes.has_columns
        else _in_parts(parts, features),
    }


def _with_columns(parts: list[str], columns: list[str]) -> list[str]:
    """Key gradients to which chosen columns add, in single precision till the end."""
    return [
        "wide = torch.float32",
        "dk_parts, dv_parts = (torch.empty_like(x, dtype=wide) for x in (dk, dv))",
        *parts,
        *columns,
        "dk.copy_(dk_parts)",
        "dv.copy_(dv_parts)",
    ]


def _in_parts(lines: list[str], features: Features) -> list[str]:
    """Key gradients of single query heads are added up on the host."""
    if not features.is_ordered:
        text = "\n".join(lines)
        return text.replace("dk_parts", "dk").replace("dv_parts", "dv").split("\n")
    return [
        "dk_parts, dv_parts = dk, dv",
        "if members < HEADS // KV_HEADS:",
        "    shape, wide = (elements, HEADS, n_k), torch.float32",
        '    make = k.new_zeros if form == "packed" else k.new_empty',
        "    dk_parts = make((*shape, dim), dtype=wide)",
        "    dv_parts = make((*shape, value_dim), dtype=wide)",
        *lines,
        "if members < HEADS // KV_HEADS:",
        "    for whole, some in ((dk, dk_parts), (dv, dv_parts)):",
        "        each = some.view(elements, KV_HEADS, -1, n_k, some.shape[3])",
        "        whole.copy_(each.sum(2))",
    ]


def _scatter(features: Features, printer: TorchPrinter) -> str:
    """`input_gradients`: from rows and keys to the elements that were read there."""
    lines = [
        '"""The gradients of inputs that scores read, from those of rows and keys.',
        "",
        "`rows` is [slots, B, H, n_q] and `columns` [slots, B, H, n_k]: of each element",
        "that a head reads.",
        '"""',
        "device = rows.device",
        "found = {",
        "    name: torch.zeros_like(inputs[name], dtype=torch.float32) for name in wanted",
        "}",
        "b = torch.arange(rows.shape[1], device=device)[:, None, None]",
        "q = torch.arange(rows.shape[3], device=device) + q_offset",
        "k = torch.arange(columns.shape[3], device=device)",
        "length = torch.full((), columns.shape[3], device=device)",
        *(f't_{item.name} = inputs["{item.name}"]' for item in features.tables),
    ]
    names = sorted(_params(features))
    lines += [
        f'p_{name} = torch.full((), values["{name}"], device=device)' for name in names
    ]
    for case in features.scores:
        lines += [f"# {place(case.span)}", *_case_lines(case, printer)]
    lines.append("return {name: x.to(inputs[name].dtype) for name, x in found.items()}")
    head = "def input_gradients(rows, columns, q_offset, values, inputs, wanted):"
    return "\n".join([head, *(f"    {line}" if line else "" for line in lines), ""])


def _params(features: Features) -> set[str]:
    reads: list[AnyRead] = list(_score_reads(features))
    return {
        name for read in reads for index in read.indices for name in params_of(index)
    }


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
    lines = [f'if "{read.table}" in wanted:', f"    gradient = {gradient}"]
    names = []
    for at, index in enumerate(read.indices):
        lines += ["    " + x for x in printer.assign(f"place_{at}", index, 8)]
        names.append(f"place_{at}")
    call = ", ".join([f'found["{read.table}"]', "gradient", "b", *names])
    return [*lines, f"    add_reads({call})"]
