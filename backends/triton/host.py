"""The launcher of packages, from the templates of generated modules.

In: nothing but the templates. Out: the text of `patternc/runtime/host.py` and
`patternc/runtime/checks.py`, which hold what every generated module holds on the host,
with the constants of one program left open: one source for both ways to run. So is
`patternc/runtime/prices.py`, a copy of `plan/prices.py`. Not its job: setting the constants
(`patternc.runtime.instance`).

    python -m patternc.backends.triton.host

writes these files again after a change of a template; a test fails until that is done.
Where the text of a module depends on the program, the package's asks a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patternc.backends import hopper
from patternc.backends.triton import shared_text
from patternc.backends.triton.features import Features
from patternc.backends.triton.kernels import EXACT_TILES
from patternc.backends.triton.launches import limit_lines, wrapped
from patternc.backends.triton.shares import combine_launch_lines, fits_packed_text
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Element, Input

CHECKS = (
    "check_call",
    "check_inputs",
    "check_length",
    "check_own_values",
    "check_params",
    "check_sequences",
)

FOLDER = Path(__file__).resolve().parents[2] / "patternc" / "runtime"

_MADE = """\
Made by `python -m patternc.backends.triton.host` from the templates of generated
modules. Do not edit."""

_CONSTANTS = """\
# What a program is: set in a copy of this module for each package that is loaded.
NAME = ""
HEADS, KV_HEADS = 1, 1
BLOCK_Q, BLOCK_K = 1, 1
LARGEST_DIM = 256
DELTA_ROWS = 64
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LAUNCHES = {}
PARAMS = {}
PACKS = SHARES = HIDES = HIDES_REVERSED = IS_ORDERED = RUNS_WITHOUT_KEYS = False
LAYOUT_SIZE = None
WHOLE_ONLY = WHOLE_ONLY_REVERSED = ""
LIST_TENSORS = TURNED_TENSORS = LIST_NUMBERS = 0
INTERPRETED = False
forward_kernel = ordered_kernel = combine_kernel = delta_kernel = None
query_gradient_kernel = key_gradient_kernel = None
ordered_query_gradient_kernel = ordered_key_gradient_kernel = None
hopper_kernel = None
HAS_HOPPER = False
HOPPER_Q = HOPPER_K = 1
HOPPER_STAGES = {}
HOPPER_WALKS = False
INPUTS, TABLES, LIST_INPUTS = {}, [], []
LISTED, ORDERED, JUDGES = [], [], {}
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
HAS_STRIPES = HAS_DIAGONALS = HAS_COLUMNS = False
SIZE_Q = SIZE_K = 0  # of chosen blocks
HAS_EPILOGUE = READS_OWN_VALUE = False
SINKS, OUTPUTS, Rows = [], [], None
WIDE_BLOCKS = 0  # numbers of blocks are int32: one kernel for all lengths
ROW_SLOTS = COLUMN_SLOTS = 0  # elements of inputs whose gradients have kernels
READS = PAIR_TABLES = PAIR_SUMS = ()
PAIR_BYTES = 268435456  # what the sums of a launch, and adding them up, may take
MAPS, PLAN_PARAMS, MADE_KEYS, PLACES = [], {}, {}, ()
mark_diagonals_kernel = live_places_kernel = tile_words_kernel = None
stripe_tiles_kernel = None
mark_columns_kernel = list_blocks_kernel = column_gradient_kernel = None
pool_kernel = part_sums_kernel = join_kernel = None
choose_kernel = segment_kernel = mark_kernel = count_kernel = None
stored_lists = visited = keep_within = input_gradients = select_keys = None
add_pair_sums = None

LOG2_E = 1.4426950408889634
"""

_EPILOGUE = '**({"EPILOGUE": epilogue} if HAS_EPILOGUE else {}),'
_OWN_VALUE = "*((v,) if READS_OWN_VALUE else ()),"

_SOME = Input("some", Element.INT, ())
_PLAIN = Features((_SOME,), (_SOME,), (), (), (), (), (), False, False)
"""What the launch of a kernel is asked for: the tables of inputs, of which may be none."""


def texts() -> Mapping[str, str]:
    """The text of each file by its name."""
    return {"checks.py": _checks(), "host.py": _host(), "prices.py": _prices()}


def _prices() -> str:
    """A copy of what decides whether choosing pays."""
    text = (FOLDER.parent / "plan" / "prices.py").read_text(encoding="utf-8")
    about, rest = text.split('"""', 2)[1:]
    title = about.split("\n", 1)[0]
    return f'"""{title}\n\n{_MADE}\n"""{rest}'


def _checks() -> str:
    about = f'"""The checks of a call.\n\n{_MADE}\n"""'
    found = shared_text.imports(CHECKS)
    plain = [line for line in found if line.startswith("import ")]
    imports = "\n".join([*plain, *(x for x in found if x.startswith("from "))])
    start = f"{about}\n\nfrom __future__ import annotations\n\n{imports}"
    return f"{start}\n\nimport torch\n\n{shared_text.body(CHECKS)}"


def _host() -> str:
    about = f'"""What is launched for a call of a package.\n\n{_MADE}\n"""'
    imports = ["import contextlib", "import functools", "import itertools"]
    imports += ["import math", ""]
    imports += ["import torch", ""]
    imports += ["from .checks import (", "    LIMIT,"]
    imports += [*(f"    {name}," for name in CHECKS), ")"]
    imports += [
        "from .launch import OutOfResources, TensorDescriptor, cdiv, next_power_of_2"
    ]
    ordered = fill("orders").split("\n\n\n")[0] + "\n"
    steps = ["most = visited(qt, n_k, values)"]
    parts = [
        "\n".join(
            [about, "", "# mypy: ignore-errors", "# ruff: noqa", "", *imports, ""]
        ),
        _CONSTANTS,
        _launch(),
        _hopper(),
        fill("shares", {"groups": steps}),
        fits_packed_text(),
        _gradients(),
        _finish(),
        ordered,
        fill("inputs"),
        fill("read"),
        fill("captured"),
        fill("profile"),
        fill("waiting_lists", {"orders": []}),
        fill("reverse_lists"),
        *(fill(name) for name in ("pair_parts", "tokens_at", "add_pairs")),
        *(fill(name) for name in ("add_at_pairs", "add_reads")),
        *_stripes(),
        *_plan(),
    ]
    text = "\n\n".join(part.strip("\n") + "\n" for part in parts)
    text = text.replace("triton.", "")  # `cdiv` and `OutOfResources` are the runtime's
    return text.replace("\n\n\n\n", "\n\n\n")


def _launch() -> str:
    head = "q, k, v, output, lse, scale, q_offset, values, inputs, epilogue, sequences"
    run = "run(q, k, v, scale, q_offset, params, {}, given)"
    names = ("lengths", "cu_seqlens", "max_seqlen")
    arguments = ["q", "k", "v", "/", "*", "scale=None", "q_offset=None"]
    arguments += [*(f"{name}=None" for name in names), "**params"]
    text = fill(
        "launch",
        {
            "about": [],
            "run": [
                f"given = ({', '.join(names)})",
                f"output, lse = {run.format(True)}",
            ],
            "attend": [
                "def attend(",
                *(f"    {argument}," for argument in arguments),
                "):",
                '    """Output and LSE."""',
                f"    given = ({', '.join(names)})",
                f"    return {run.format(False)}",
            ],
            "run_head": [f"def {run.format('epilogue')}:"],
            "limits": limit_lines(),
            "exact_tiles": [f"EXACT_TILES = {EXACT_TILES}"],
            "options": [
                '**({"PACKED": is_packed} if PACKS else {}),',
                _EPILOGUE,
            ],
            "packed": [
                'is_packed = PACKS and SHARES and form == "none"',
                "is_packed = is_packed and n_q * (HEADS // KV_HEADS) <= BLOCK_Q",
                "is_packed = is_packed and fits_packed(q, v)",
                "if is_packed:",
                "    programs = n_q_tiles * KV_HEADS * batch",
            ],
            "values": ["values = check_params(NAME, PARAMS, params, INPUTS)"],
            "more": [*_more(), "if inputs:", "    check_no_gradients(inputs)"],
            "if_nothing": [
                "if batch * n_q == 0 or n_k == 0 and not RUNS_WITHOUT_KEYS:"
            ],
            "launch": wrapped("launch(", head, ")", 8),
            "launch_head": wrapped("def launch(", f"{head}=None", "):", 0),
            "sequences": _sequences("WHOLE_ONLY"),
            "access": _access("q, k, v"),
            "tile_lists": _lists(),
            "list_arguments": [
                "*lists[:LIST_TENSORS],",
                "*stripes[:9],",
                "*pointers,",
                "*((k, v) if HAS_STRIPES else ()),",
                _OWN_VALUE,
            ],
            "numbers": _numbers(),
            "start": [
                "kernel = ordered_kernel if ordered else forward_kernel",
                "kind = (q.device, q.dtype, dim, value_dim, access)",
                "first = (kernel, programs, arguments, options, stages, kind)",
                "again = exact_of(first, n_q_tiles if shares[0] is None else 1)",
                "is_alone = HAS_HOPPER and not LISTED and shares[0] is None",
                "how = (access, scale, q_offset, values, sequences)",
                "if is_alone and runs_on_hopper(q, v, *how):",
                "    more = tuple(values.values())",
                "    given = (scale, q_offset, more, sequences)",
                "    first = hopper_launch(q, k, v, output, lse, *given)",
                *_start("HIDES"),
                *_combine(),
            ],
        },
    )
    # The module's own way to know Triton's interpreter; the package has none.
    lines = text.splitlines()
    kept = [x for x in lines if not x.startswith(("INTERPRETED =", "LOG2_E ="))]
    assert len(kept) == len(lines) - 2
    return "\n".join(kept).replace("    compile_together(first, again)\n", "")


def _combine() -> list[str]:
    """The launch that joins shares, where rows may read values of their own."""
    lines = combine_launch_lines(_PLAIN)
    lines.insert(lines.index("        *pointers,") + 1, f"        {_OWN_VALUE}")
    strides = "*(v.stride() if READS_OWN_VALUE else ()),"
    lines.insert(lines.index("        splits,") + 1, f"        {strides}")
    lines.insert(-1, f"        {_EPILOGUE}")
    return lines


def _finish() -> str:
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


def _hopper() -> str:
    """How the kernel for Hopper is launched; its layouts were compiled in."""
    text = fill("launch", {"constants": []}, hopper.__name__)
    layout = "gl.NVMMASharedLayout(HOPPER_SWIZZLE, bits, rank=4)"
    assert layout in text
    text = text.replace(layout, "None").replace("HopperDescriptor", "TensorDescriptor")
    return text.replace("    bits = 8 * tensor.element_size()\n", "")


def _gradients() -> str:
    call = "launch_gradients("
    inner = "q, k, v, out, lse, d_out, d_lse, dq, dk, dv"
    inner += ", scale, q_offset, values, sequences, inputs, read_gradients, totals"
    arguments = [f"    {item}," for item in inner.split(", ")]
    return fill(
        "gradients",
        {
            "values": ["values = check_params(NAME, PARAMS, params, INPUTS)"],
            "more": _more(),
            "sequences": _sequences("WHOLE_ONLY_REVERSED"),
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
            "access": _access("q, k, v, d_out"),
            "tile_lists": [*_lists(), *_key_stripes()],
            "members": [
                "# Heads of one key/value head may have orders of their own.",
                "members = 1 if ordered else HEADS // KV_HEADS",
            ],
            "numbers": _numbers(),
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
        *_start("HIDES_REVERSED" if is_key else "HIDES"),
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
        *_start("HAS_STRIPES"),
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


def _numbers() -> list[str]:
    return [
        "*(lists[6:] or [0])[:LIST_NUMBERS],",
        "*stripes[9:11],",
        "*(as_numbers(pointers) if pointers else ()),",
    ]


def _stripes() -> list[str]:
    """What finds chosen diagonals, columns and blocks, and lists them."""
    given = "rows, n_q, n_k, q_offset, values, numbers, pointers, q0"
    lines = [
        f"given = ({given})",
        "if HAS_DIAGONALS:",
        "    found = chosen_diagonals(*given)",
        "    words, tiles, tile_words, held, bounds[:, :, :4], marks = found",
        "if HAS_COLUMNS:",
        "    found = chosen_columns(*given)",
        "    columns, column_words, bounds[:, :, 4:], about = found",
        "if SIZE_Q:",
        "    first_q_block = block_counts(n_q, n_k, q_offset)[0]",
        "    given = (n_q, n_k, q_offset, values, pointers, device)",
        "    blocks, ends = blocks_of(*given)",
    ]
    within = [
        "if not HAS_COLUMNS:",
        "    return None",
        "ahead = torch.arange(n_q + n_k - 1, device=device)",
        "ahead -= q_offset + n_q - 1",
        "found = counts_within(ahead, n_k, values, device)",
        "return found.to(torch.int8).contiguous()",
    ]
    keep = 'keep = keep_within("{}", ahead, n_k, values)'
    blocks = fill("blocks", {"within": [keep.format("blocks")]})
    return [
        fill("stripes", {"stripes": lines}),
        fill("diagonals", {"within": within}),
        fill("columns", {"within": [keep.format("columns")]}),
        blocks[: blocks.index("\n\nWIDE_BLOCKS =")] + "\n",  # a program's own sizes
        fill("key_stripes"),
    ]


def _plan() -> list[str]:
    """What chooses keys before the attention."""
    plan = fill(
        "plan",
        {
            "nothing": [
                "for name, keys in MADE_KEYS.items():",
                "    shape = (*q.shape[:2], *[0] * keys)",
                "    found[name] = q.new_zeros(shape, dtype=torch.bool)",
                "found |= dict.fromkeys(PLACES, 0)",
            ],
            "names": [],
            "selections": ["found = select_keys(q, k, scale, q_offset, values)"],
        },
    )
    choose = fill("choose_calls")
    choose = choose[: choose.index("\n\ndef list_chosen")]  # of no plan
    return [plan, fill("plan_parts"), fill("probe_calls"), choose]


def _more() -> list[str]:
    return [
        "if LAYOUT_SIZE is not None:",
        "    check_length(NAME, LAYOUT_SIZE, q.shape[2], k.shape[2], q_offset)",
        "if READS_OWN_VALUE:",
        "    check_own_values(NAME, q.shape[2], k.shape[2], q_offset)",
        "inputs = checked_inputs(q, k, q_offset, params) if INPUTS else {}",
    ]


def _sequences(reason: str) -> list[str]:
    return [
        "sizes = (k.shape[2], q_offset)",
        "sequences = check_sequences(NAME, q, *sizes, *given)",
        f"if sequences is not None and {reason}:",
        f"    came = {reason}",
        '    raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")',
    ]


def _access(tensors: str) -> list[str]:
    return [
        f"access = access_of({tensors})",
        "if n_k == 0:",
        '    access = "any"',
        "ordered = IS_ORDERED and is_ordered(n_q, n_k, q_offset)",
        'if ordered and access == "descriptor":',
        '    access = "aligned"  # rows are gathered by token',
    ]


def _lists() -> list[str]:
    return [
        "pointers, stripes = as_pointers(inputs) if TABLES else (), ()",
        "if HAS_STRIPES:",
        "    sizes = (batch, n_q, n_k, q_offset)",
        "    stripes = kept_stripes(*sizes, values, pointers, q.device)",
        "lists, turned = (), ()",
        "if LISTED:",
        "    given = (values, inputs, False, q.device)",
        "    lists = tile_lists(batch, n_q, n_k, q_offset, *given)",
        "elif LIST_TENSORS or TURNED_TENSORS:",
        "    lists, turned = stored_lists(n_q, n_k, q_offset, q.device)",
    ]


def _start(hides: str) -> list[str]:
    """The launch `first`, and `again` where tiles may hold hidden pairs."""
    return [
        f"if {hides} or sequences is not None:",
        "    start_both(first, again)",
        "else:",
        "    start(*first)",
    ]


def main() -> None:
    """Write all files."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
