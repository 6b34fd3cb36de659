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
from patternc.backends.triton.host_gradients import finish_text, gradients_text
from patternc.backends.triton.host_lines import (
    access_lines,
    lists_lines,
    more_lines,
    numbers_lines,
    sequences_lines,
    start_lines,
)
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
        gradients_text(),
        finish_text(),
        ordered,
        fill("inputs"),
        fill("read"),
        fill("captured"),
        fill("profile"),
        fill("waiting_lists", {"orders": []}),
        fill("reverse_lists"),
        _state_lists(),
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
            "more": [*more_lines(), "if inputs:", "    check_no_gradients(inputs)"],
            "if_nothing": [
                "if batch * n_q == 0 or n_k == 0 and not RUNS_WITHOUT_KEYS:"
            ],
            "launch": wrapped("launch(", head, ")", 8),
            "launch_head": wrapped("def launch(", f"{head}=None", "):", 0),
            "sequences": sequences_lines("WHOLE_ONLY"),
            "access": access_lines("q, k, v"),
            "tile_lists": lists_lines(),
            "list_arguments": [
                "*lists[:LIST_TENSORS],",
                "*stripes[:9],",
                "*pointers,",
                "*((k, v) if HAS_STRIPES else ()),",
                _OWN_VALUE,
            ],
            "numbers": numbers_lines(),
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
                *start_lines("HIDES"),
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


def _hopper() -> str:
    """How the kernel for Hopper is launched; its layouts were compiled in."""
    text = fill("launch", {"constants": []}, hopper.__name__)
    layout = "gl.NVMMASharedLayout(HOPPER_SWIZZLE, bits, rank=4)"
    assert layout in text
    text = text.replace(layout, "None").replace("HopperDescriptor", "TensorDescriptor")
    return text.replace("    bits = 8 * tensor.element_size()\n", "")


def _state_lists() -> str:
    """Tile lists that follow what was chosen, beside those that wait."""
    lists, turned = fill("state_lists", {"orders": []}), fill("reverse_states")
    lists = lists.replace("MOST_LISTS =", "MOST_STATE_LISTS =", 1)
    lists = lists.replace("WAITS = False\n", "", 1)
    lists = lists.replace("def is_little(", "def is_little_state(", 1)
    lists = lists.replace("def build_lists(", "def build_state_lists(", 1)
    turned = turned.replace("def reversed_lists(", "def reversed_state_lists(", 1)
    return f"{lists}\n\n{turned}"


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


def main() -> None:
    """Write all files."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
