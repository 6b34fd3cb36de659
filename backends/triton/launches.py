"""The text that checks a call and launches a kernel.

In: a planned kernel and what it does beside masks. Out: `forward` and all that it
calls on the host. Not its job: the kernels (`kernels`), tile lists (`profiles`).
"""

from __future__ import annotations

from patternc.backends.triton.expr import COLUMNS
from patternc.backends.triton.features import Features
from patternc.backends.triton.kernels import EXACT_TILES, number_names, takes_lists
from patternc.backends.triton.ranges import hides_pairs
from patternc.backends.triton.shares import (
    combine_launch_lines,
    packed_lines,
    packs,
)
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Attention
from patternc.plan.choose import SHARED_BYTES
from patternc.plan.kernel import Kernel


def checks_called(attention: Attention, features: Features) -> list[str]:
    """The checks that a module calls."""
    return [
        "check_call",
        "check_params",
        "check_sequences",
        *(["check_inputs"] if attention.inputs else []),
        *(["check_length"] if attention.layout else []),
        *(["check_own_values"] if features.reads_own_value else []),
    ]


def launch_text(kernel: Kernel, features: Features, has_hopper: bool = False) -> str:
    """`forward` and the launcher; `has_hopper`: beside another kernel, for Hopper."""
    inputs = bool(features.inputs)
    given = ", inputs" if inputs else ""
    last = ", epilogue" if features.has_epilogue else ""
    head = f"q, k, v, output, lse, scale, q_offset, values{given}{last}"
    run = "run(q, k, v, scale, q_offset, params{}, {})"
    hides = hides_pairs(kernel) or features.has_stripes
    is_packing, whole = packs(kernel, features), whole_only(kernel)
    text = fill(
        "launch",
        {
            "about": _about(features),
            "run": [
                "given = (lengths, cu_seqlens, max_seqlen)",
                f"output, lse = {run.format(', True' if last else '', 'given')}",
            ],
            "attend": _attend(run.format(", False" if last else "", "given")),
            "run_head": [f"def {run.format(last, 'given')}:"],
            "limits": limit_lines(),
            "exact_tiles": [f"EXACT_TILES = {EXACT_TILES}"],
            "options": [
                *(['"PACKED": is_packed,'] if is_packing else []),
                *(['"EPILOGUE": epilogue,'] if last else []),
            ],
            "packed": packed_lines(is_packing),
            "values": checked_lines(features),
            "more": [
                *more_lines(kernel.attention, features),
                *(["check_no_gradients(inputs)"] if inputs else []),
            ],
            "if_nothing": [
                "if batch * n_q == 0:"
                if features.runs_without_keys
                else "if batch * n_q == 0 or n_k == 0:"
            ],
            "launch": wrapped("launch(", f"{head}, sequences", ")", 8),
            "launch_head": wrapped("def launch(", f"{head}, sequences=None", "):", 0),
            "sequences": sequence_lines(whole),
            "access": [
                *access_lines(features, "q, k, v"),
                *(_listed_lines() if has_hopper and features.lists_data else []),
            ],
            "tile_lists": tile_list_lines(
                features, takes_lists(kernel, features), not whole
            ),
            "list_arguments": _pointers(kernel, features),
            "numbers": number_arguments(features),
            "start": _start(features, hides, has_hopper),
        },
    )
    return "\n\n".join([text, *([fill("inputs")] if inputs else [])])


def wrapped(head: str, arguments: str, tail: str, indent: int) -> list[str]:
    """A call or a definition, on three lines if one is too short."""
    line = f"{head}{arguments}{tail}"
    if indent + len(line) <= COLUMNS:
        return [line]
    return [head, f"    {arguments}", tail]


def _about(features: Features) -> list[str]:
    """More of the docstring."""
    lines = []
    if features.inputs:
        names = ", ".join(f"`{item.name}`" for item in features.inputs)
        lines += [
            f"The inputs {names} are given by name, shaped as INPUTS says, with or"
        ]
        lines += ["without a batch axis of 1 or B in front."]
    if features.unnormalised:
        lines.append("Heads whose weights are no softmax have no LSE: theirs is NaN.")
    return ["", *lines] if lines else []


def more_lines(attention: Attention, features: Features) -> list[str]:
    """Checks beyond those of every module."""
    lines = []
    if attention.layout is not None:
        size = attention.layout.size
        sizes = "q.shape[2], k.shape[2], q_offset"
        lines.append(f"check_length(NAME, {size}, {sizes})")
    if features.reads_own_value:
        lines.append("check_own_values(NAME, q.shape[2], k.shape[2], q_offset)")
    if features.inputs:
        lines.append("inputs = checked_inputs(q, k, q_offset, params)")
    return lines


def checked_lines(features: Features) -> list[str]:
    """The checks of run-time parameters."""
    names = "NAME, PARAMS, params" + (", INPUTS" if features.inputs else "")
    return [f"values = check_params({names})"]


def access_lines(features: Features, tensors: str) -> list[str]:
    """How tiles are read, and whether they hold positions of an order."""
    lines = [f"access = access_of({tensors})"]
    if features.runs_without_keys:
        lines += ["if n_k == 0:", '    access = "any"']
    if features.is_ordered:
        lines += [
            "ordered = is_ordered(n_q, n_k, q_offset)",
            'if ordered and access == "descriptor":',
            '    access = "aligned"  # rows are gathered by token',
        ]
    return lines


def tile_list_lines(features: Features, takes: bool, may_be_many: bool) -> list[str]:
    """Inputs as pointers, and the lists of tiles if a kernel takes them.

    `may_be_many` says whether a call may have sequences.
    """
    tables = ["pointers = as_pointers(inputs)"] if features.tables else []
    if features.has_stripes:
        tables += wrapped(
            "stripes = kept_stripes(",
            "batch, n_q, n_k, q_offset, values, pointers, q.device",
            ")",
            4,
        )
    if not takes:
        return tables
    return [*tables, *_tile_list_lines(features, may_be_many)]


def _tile_list_lines(features: Features, may_be_many: bool) -> list[str]:
    """The lists of a call, or of each of its sequences."""
    whole = _whole_list_lines(features)
    if not may_be_many:
        return whole
    many = "lists = sequence_lists(sequences, n_q, n_q_tiles, values, q.device)"
    return [
        "if sequences is None:",
        *(f"    {line}" for line in whole),
        "else:",
        f"    {many}",
    ]


def _whole_list_lines(features: Features) -> list[str]:
    if not features.lists_data:
        return ["lists = tile_lists(n_q, n_k, q_offset, values, q.device)"]
    ordered = "ordered" if features.is_ordered else "False"
    inputs = "inputs" if features.inputs else "{}"
    sizes = "batch, n_q, n_k, q_offset"
    return [f"lists = tile_lists({sizes}, values, {inputs}, {ordered}, q.device)"]


def limit_lines() -> list[str]:
    """The largest limit of each compiler's devices: what is more fits none of them."""
    limits = {"ampere": SHARED_BYTES["sm_80"], "hopper": SHARED_BYTES["sm_90"]}
    return [f"SHARED_BYTES = {limits}".replace("'", '"')]


def _listed_lines() -> list[str]:
    """Calls whose tiles are listed for a kernel of their own end here."""
    return [
        'is_whole = form == "none"',
        "if is_whole and runs_on_hopper(q, v, access, scale, q_offset, values):",
        "    launch_listed(q, k, v, output, lse, scale, q_offset, values, inputs)",
        "    return",
    ]


def _pointers(kernel: Kernel, features: Features) -> list[str]:
    lines = []
    if takes_lists(kernel, features):
        lines += list_arguments(features, "lists")
    if features.has_stripes:
        lines.append("*stripes[:9],")
    if features.tables:
        lines.append("*pointers,")
    if features.has_stripes:
        lines += ["k,", "v,"]
    if features.reads_own_value:
        lines.append("v,")
    return lines


def list_arguments(features: Features, name: str) -> list[str]:
    """What a kernel takes of lists."""
    count = 6 if features.is_ordered else 4
    return [f"*{name}[:{count}]," if features.lists_data else f"*{name},"]


def number_arguments(features: Features) -> list[str]:
    """The scalar arguments after the run-time parameters."""
    lines = ["lists[6],"] if features.lists_data else []
    if features.has_stripes:
        lines.append("*stripes[9:11],")
    if features.tables:
        lines.append("*as_numbers(pointers),")
    assert bool(lines) == bool(number_names(features))
    return lines


def sequence_lines(reason: str) -> list[str]:
    """The check of padded or packed sequences; `reason`: why there may be none."""
    lines = [
        "sizes = (k.shape[2], q_offset)",
        "sequences = check_sequences(NAME, q, *sizes, *given)",
    ]
    if reason:
        lines += [
            "if sequences is not None:",
            f'    came = "{reason}"',
            '    raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")',
        ]
    return lines


def sequence_lists_text(ordered: bool) -> str:
    """`sequence_lists`; `ordered`: the tiles of each sequence hold positions."""
    sizes = (
        "1, length, length, 0, values, {}, True"
        if ordered
        else "length, length, 0, values"
    )
    orders = fill("sequence_orders").splitlines() if ordered else []
    holes = {
        "own": [f"own[length] = tile_lists({sizes}, device)"],
        "orders": orders,
        "with_orders": ["lists = (*lists, orders, order_of, HEADS)"] if ordered else [],
    }
    return fill("sequence_lists", holes)


def whole_only(kernel: Kernel) -> str:
    """Why a kernel takes no sequences of different lengths; nothing if it does."""
    if kernel.attention.layout is not None:
        return "a layout has one length"
    if kernel.attention.inputs:
        return "inputs are read at positions of the whole sequence"
    return ""


def _attend(run: str) -> list[str]:
    """The first half of a training step."""
    about = "Output and LSE before sinks and `output` clauses, as `finish` takes them."
    names = ("lengths", "cu_seqlens", "max_seqlen")
    arguments = ["q", "k", "v", "/", "*", "scale=None", "q_offset=None"]
    arguments += [*(f"{name}=None" for name in names), "**params"]
    return [
        "def attend(",
        *(f"    {argument}," for argument in arguments),
        "):",
        f'    """{about}"""',
        f"    given = ({', '.join(names)})",
        f"    return {run}",
    ]


def _start(features: Features, hides: bool, has_hopper: bool) -> list[str]:
    """How a kernel is started: of two, the one that the call asks for."""
    kernel = ["kernel = forward_kernel"]
    if features.is_ordered:
        kernel = ["kernel = ordered_kernel if ordered else forward_kernel"]
    other = []
    if has_hopper and not features.lists_data:
        other = [
            "how = (access, scale, q_offset, values, sequences)",
            "if shares[0] is None and runs_on_hopper(q, v, *how):",
            f"    more = {_more(features)}",
            "    given = (scale, q_offset, more, sequences)",
            "    first = hopper_launch(q, k, v, output, lse, *given)",
            *(["    return start_looking(first, again, lse)"] if hides else []),
        ]
    return [
        *kernel,
        "kind = (q.device, q.dtype, dim, value_dim, access)",
        "first = (kernel, programs, arguments, options, stages, kind)",
        "again = exact_of(first, n_q_tiles if shares[0] is None else 1)",
        *other,
        *start_lines(hides),
        *combine_launch_lines(features),
    ]


def _more(features: Features) -> str:
    """What the kernel for Hopper takes behind the scale."""
    if features.has_stripes:
        return "(*stripes[7:9], *values.values(), *stripes[9:11])"
    return "tuple(values.values())"


def start_lines(hides: bool) -> list[str]:
    """The launch `first`, and `again`; without hidden pairs that only for sequences."""
    if hides:
        return ["start_both(first, again)"]
    return [
        "if sequences is None:",
        "    compile_together(first)",
        "    start(*first)",
        "else:",
        "    start_both(first, again)",
    ]
