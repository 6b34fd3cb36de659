"""The backward pass in the launcher of packages.

In: nothing but the templates. Out: the text of `gradients`, of the launches in it, and of
`finish`. Not its job: the rest of the launcher (`host`).
"""

from __future__ import annotations

from patternc.backends.triton.host_lines import (
    access_lines,
    lists_lines,
    more_lines,
    numbers_lines,
    sequences_lines,
    start_lines,
)
from patternc.backends.triton.template import fill


def gradients_text() -> str:
    call = "launch_gradients("
    inner = "q, k, v, out, lse, d_out, d_lse, dq, dk, dv"
    inner += ", scale, q_offset, values, sequences, inputs, read_gradients, totals"
    arguments = [f"    {item}," for item in inner.split(", ")]
    return fill(
        "gradients",
        {
            "values": ["values = check_params(NAME, PARAMS, params, INPUTS)"],
            "more": more_lines(),
            "sequences": sequences_lines("WHOLE_ONLY_REVERSED"),
            "wanted": [
                "for name in wanted:",
                "    if name not in READS:",
                '        raise ValueError(f"{NAME}: no score reads an input `{name}`")',
            ],
            "nothing": [
                "dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))",
                "found = {name: torch.zeros_like(inputs[name]) for name in wanted}",
                "return dq, dk, dv, found",
            ],
            "zero_reads": [
                "read_gradients = []",
                "for slots, n in ((ROW_SLOTS, n_q), (COLUMN_SLOTS, n_k)):",
                "    shape = (slots if wanted else 0, batch, HEADS, n)",
                "    own = q.new_zeros(shape, dtype=torch.float32) if READS else None",
                "    read_gradients.append(own)",
                "wide = torch.float32",
                "totals = {x: torch.zeros_like(inputs[x], dtype=wide) for x in wanted}",
            ],
            "launch": [call, *arguments, ")"],
            "found": [
                "if wanted and (ROW_SLOTS or COLUMN_SLOTS):",
                "    rows, columns = read_gradients",
                "    input_gradients(rows, columns, q_offset, values, inputs, totals)",
                "found = {name: x.to(inputs[name].dtype) for name, x in totals.items()}",
                "return dq, dk, dv, found",
            ],
            "launch_head": [f"def {call}", *arguments, "):"],
            "access": access_lines("q, k, v, d_out"),
            "tile_lists": [*lists_lines(), *_key_stripes()],
            "members": [
                "# Heads of one key/value head may have orders of their own.",
                "members = 1 if ordered else HEADS // KV_HEADS",
            ],
            "numbers": numbers_lines(),
            "query_gradient": _query_gradient(),
            "key_gradient": _key_gradient(),
        },
    )


def _query_gradient() -> list[str]:
    """Query gradients, of some tiles at a time where these store sums of pairs."""
    inner = [
        "sums = new_sums(q, part, n_k_tiles, has_pairs)",
        *_gradient("query", "part[1] * HEADS * part[3]"),
        "if has_pairs:",
        "    site = (first_q_tile, n_k_tiles, n_k, values, inputs, totals)",
        "    add_pair_sums(sums, part, *site, lists if ordered else None)",
    ]
    return [
        "has_pairs = any(name in totals for name in PAIR_TABLES)",
        "for part in parts_of(batch, n_q_tiles, n_k_tiles, has_pairs):",
        *(f"    {line}" for line in inner),
    ]


def _gradient(work: str, programs: str) -> list[str]:
    """The launches of one gradient kernel."""
    is_key = work == "key"
    outputs = ["dk_parts,", "dv_parts,"] if is_key else ["dq,"]
    lists = ["*lists[:LIST_TENSORS],", "*stripes[:9],"]
    if is_key:
        lists = ["*turned[:TURNED_TENSORS],", "*key_stripes,"]
    slots, at = ("COLUMN_SLOTS", 1) if is_key else ("ROW_SLOTS", 0)
    reads = [f"*([read_gradients[{at}]] if {slots} else []),"]
    last = []
    more = []
    own_kind = "kind"
    if not is_key:
        reads.append("*sums,")
        last = ["*((*part[:3], batch) if PAIR_SUMS else ()),"]
        more = ["if PAIR_SUMS:", '    more["PAIR_GRADIENTS"] = has_pairs']
        own_kind = '(*kind, "pairs") if has_pairs else kind'
    members = ['    "MEMBERS": members,'] if is_key else []
    name = f"{work}_gradient_kernel"
    return [
        f"programs = {programs}",
        *_arguments(outputs, reads, lists, *last),
        f"kernel = ordered_{name} if ordered else {name}",
        f'warps, stages = launch_of("{work}", columns, q, access)',
        "more = {",
        "    **options,",
        *members,
        '    "num_warps": warps,',
        "}",
        f"if {slots}:",
        f'    more["READ_GRADIENTS"] = read_gradients[{at}].numel() > 0',
        *more,
        f"own_kind = {own_kind}",
        "first = (kernel, programs, arguments, more, stages, own_kind)",
        "again = exact_of(first)",
        *start_lines("HIDES_REVERSED" if is_key else "HIDES"),
    ]


def _arguments(
    outputs: list[str], reads: list[str], lists: list[str], *last: str
) -> list[str]:
    inner = ["*sources,", *outputs, *reads, *lists]
    inner += ["*pointers,", "*((k, v) if HAS_STRIPES else ()),", "*numbers,", *last]
    return ["arguments = (", *(f"    {line}" for line in inner), ")"]


def _key_gradient() -> list[str]:
    """Key gradients of single query heads are added up on the host.

    Chosen columns add to those of their keys, in single precision till the end.
    """
    columns = [
        "programs = n_k_tiles * KV_HEADS * batch",
        "spoiled = q.new_empty(programs, dtype=torch.int8)",
        "of_columns = (*stripes[:6], stripes[12], *stripes[7:9])",
        "for member in range(HEADS // KV_HEADS):",
    ]
    lists = ["*turned[:TURNED_TENSORS],", "*of_columns,"]
    inner = [
        *_arguments(["spoiled,", "dk_parts,", "dv_parts,"], [], lists, "member,"),
        "kernel = column_gradient_kernel",
        'warps, stages = launch_of("key", columns, q, access)',
        'more = {**options, "num_warps": warps}',
        "first = (kernel, programs, arguments, more, stages, kind)",
        "again = exact_of(first)",
        *start_lines("HAS_STRIPES"),
    ]
    columns += [f"    {line}" for line in inner]
    return [
        "dk_parts, dv_parts = dk, dv",
        "wide = torch.float32",
        "if HAS_COLUMNS:",
        "    dk_parts, dv_parts = (torch.empty_like(x, dtype=wide) for x in (dk, dv))",
        "elif members < HEADS // KV_HEADS:",
        "    shape = (elements, HEADS, n_k)",
        '    make = k.new_zeros if form == "packed" else k.new_empty',
        "    dk_parts = make((*shape, dim), dtype=wide)",
        "    dv_parts = make((*shape, value_dim), dtype=wide)",
        *_gradient("key", "n_k_tiles * (HEADS // members) * batch"),
        "if HAS_COLUMNS:",
        *(f"    {line}" for line in columns),
        "    dk.copy_(dk_parts)",
        "    dv.copy_(dv_parts)",
        "elif members < HEADS // KV_HEADS:",
        "    for whole, some in ((dk, dk_parts), (dv, dv_parts)):",
        "        each = some.view(elements, KV_HEADS, -1, n_k, some.shape[3])",
        "        whole.copy_(each.sum(2))",
    ]


def _key_stripes() -> list[str]:
    return [
        "if LISTED and TURNED_TENSORS:",
        "    turned = reversed_lists(lists, first_q_tile, n_k)",
        "key_stripes = stripes[:9]",
        "if HAS_DIAGONALS:",
        "    key_stripes = key_stripes_of(stripes, n_q, n_k, q_offset)",
        "if SIZE_Q:",
        "    given = (n_q, n_k, q_offset, values, pointers, q.device)",
        "    key_stripes = (*key_stripes[:7], *blocks_of(*given, reverse=True))",
    ]


def finish_text() -> str:
    """Sinks and outputs where autograd sees them: their formulas are in the package."""
    own = "v[:, at // (HEADS // KV_HEADS), q_offset : q_offset + n_q].to(wide)"
    heads = "parts = [torch.arange(head, head + 1, device=device) for head in heads]"
    text = fill(
        "finish",
        {
            "values": [
                "values = check_params(NAME, PARAMS, params, INPUTS)",
                "inputs = checked_inputs(out, v, q_offset, params) if INPUTS else {}",
            ],
            "tables": ["at_rows = Rows(b, q, length, values, inputs, wide)"],
            "cases": [
                "for heads, logit in SINKS:",
                f"    {heads}",
                "    at = torch.cat(parts)",
                "    sink = logit(at_rows, at[:, None, None])",
                "    rows, row_lse = join_sink_rows(out[:, at], lse[:, at], sink)",
                "    out = with_heads(out, at, rows)",
                "    lse = with_heads(lse, at, row_lse)",
                "for heads, value in OUTPUTS:",
                f"    {heads}",
                "    at, own = torch.cat(parts), None",
                "    if READS_OWN_VALUE:",
                f"        own = {own}",
                "    o = out[:, at]",
                "    rows = value(at_rows, at[:, None, None], o, own)",
                "    out = with_heads(out, at, rows.expand(o.shape))",
            ],
        },
    )
    start, end = text.index("    def number("), text.index("    at_rows = ")
    return text[:start] + text[end:]
