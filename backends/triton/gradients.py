"""The host's half of the backward pass.

In: a planned kernel, its reverse and what it does beside masks. Out: the text of
`gradients`, of the lists turned round and of what adds up the gradients of inputs. Not
its job: the kernels (`backward`), sinks and outputs (`finish`).
"""

from __future__ import annotations

from patternc.backends.triton.expr import TorchPrinter
from patternc.backends.triton.features import Features
from patternc.backends.triton.input_gradients import (
    add_part_lines,
    found_lines,
    has_reads,
    input_texts,
    nothing_lines,
    room_lines,
    wanted_lines,
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
from patternc.backends.triton.pairs import has_pairs, pair_tables
from patternc.backends.triton.profiles import is_chosen
from patternc.backends.triton.ranges import has_lists, hides_pairs
from patternc.backends.triton.slopes import column_slots, row_slots
from patternc.backends.triton.stripes import Striped
from patternc.backends.triton.template import fill
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
    own = ", read_gradients" if has_reads(features) else ""
    own += ", totals" if has_pairs(features) else ""
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
            "wanted": wanted_lines(features),
            "nothing": nothing_lines(features),
            "zero_reads": room_lines(features),
            "launch": [call, *arguments, ")"],
            "found": found_lines(features),
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
    texts += input_texts(kernel, features, printer)
    return "\n\n".join(texts)


def gradient_whole_only(kernel: Kernel, features: Features) -> str:
    """Why there are no gradients of sequences; nothing if there are."""
    if reason := whole_only(kernel):
        return reason
    if features.has_epilogue:
        return "the rows of a sink or an output clause have no sequences of their own"
    return ""


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
    in_parts = has_pairs(features)

    def arguments(
        outputs: list[str],
        slots: int,
        at: int,
        lists: list[str],
        last: tuple[str, ...] = (),
    ) -> list[str]:
        reads = [f"read_gradients[{at}],"] if slots else []
        reads += ["*sums,"] if in_parts and at == 0 else []
        inner = [
            "*sources,",
            *outputs,
            *reads,
            *lists,
            *tables,
            "*numbers,",
            *(["*part[:3],", "batch,"] if in_parts and at == 0 else []),
            *last,
        ]
        return ["arguments = (", *("    " + line for line in inner), ")"]

    def start(name: str, extra: list[str], slots: int, hides: bool) -> list[str]:
        work = name.removesuffix("_gradient").replace("column", "key")
        reads = [f'"READ_GRADIENTS": read_gradients[{slots - 1}].numel() > 0,']
        has_sums = in_parts and name == "query_gradient"
        reads = reads if slots else []
        reads += ['"PAIR_GRADIENTS": has_pairs,'] if has_sums else []
        inner = ["**options,", *reads, *extra]
        inner.append('"num_warps": warps,')
        kernel_name = f"{name}_kernel"
        lines = [f"kernel = {kernel_name}"]
        if features.is_ordered:
            lines = [f"kernel = ordered_{kernel_name} if ordered else {kernel_name}"]
        lines.append(f'warps, stages = launch_of("{work}", columns, q, access)')
        lines += ["more = {", *("    " + line for line in inner), "}"]
        own_kind = "own_kind" if has_sums else "kind"
        return [
            *lines,
            f"first = (kernel, programs, arguments, more, stages, {own_kind})",
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
    whole = "n_q_tiles * HEADS * batch"
    query = [
        f"programs = {'part[1] * HEADS * part[3]' if in_parts else whole}",
        *arguments(["dq,"], row, 0, own),
        *start("query_gradient", [], 1 if row else 0, hides_pairs(kernel)),
    ]
    return {
        "query_gradient": _by_parts(query, features) if in_parts else query,
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


def _by_parts(launches: list[str], features: Features) -> list[str]:
    """Query gradients of some tiles, then what these have stored of their pairs."""
    names = tuple(sorted(pair_tables(features)))
    inner = [
        "sums = new_sums(q, part, n_k_tiles, has_pairs)",
        *launches,
        *add_part_lines(features),
    ]
    return [
        f"has_pairs = any(name in totals for name in {names})".replace("'", '"'),
        'own_kind = (*kind, "pairs") if has_pairs else kind',
        "for part in parts_of(batch, n_q_tiles, n_k_tiles, has_pairs):",
        *(f"    {line}" for line in inner),
    ]


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
