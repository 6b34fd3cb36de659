"""The text that checks a call and launches a kernel.

In: a planned kernel and what it does beside masks. Out: `forward` and all that it
calls on the host. Not its job: the kernels (`kernels`), tile lists (`profiles`).
"""

from __future__ import annotations

from patternc.backends.triton.features import Features
from patternc.backends.triton.kernels import number_names, takes_lists
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Attention
from patternc.plan.kernel import Kernel


def checks_called(attention: Attention, features: Features) -> list[str]:
    """The functions of `backends.checks` that a module calls."""
    return [
        "check_call",
        "check_params",
        "check_sequences",
        *(["check_inputs"] if attention.inputs else []),
        *(["check_length"] if attention.layout else []),
        *(["check_own_values"] if features.reads_own_value else []),
    ]


def launch_text(kernel: Kernel, features: Features) -> str:
    """`forward` and the launcher."""
    inputs = bool(features.inputs)
    given = ", inputs" if inputs else ""
    arguments = f"q, k, v, output, lse, scale, q_offset, values{given}"
    launch = f"launch({arguments}, sequences)"
    names = "NAME, PARAMS, params" + (", INPUTS" if inputs else "")
    text = fill(
        "launch",
        {
            "about": _about(features),
            "values": [f"values = check_params({names})"],
            "more": _more(kernel.attention, features),
            "if_nothing": [
                "if batch * n_q == 0:"
                if features.runs_without_keys
                else "if batch * n_q == 0 or n_k == 0:"
            ],
            "launch": [launch],
            "launch_head": [f"def launch({arguments}, sequences=None):"],
            "sequences": _sequences(kernel, features),
            "access": _access(features),
            "tile_lists": _tile_lists(kernel, features),
            "list_arguments": _pointers(kernel, features),
            "numbers": _numbers(features),
            **_start(features),
        },
    )
    return "\n\n".join([text, *([fill("inputs")] if inputs else [])])


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


def _more(attention: Attention, features: Features) -> list[str]:
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


def _sequences(kernel: Kernel, features: Features) -> list[str]:
    """The check of padded or packed sequences, which not every program takes."""
    lines = [
        "sizes = (k.shape[2], q_offset)",
        "given = (lengths, cu_seqlens, max_seqlen)",
        "sequences = check_sequences(NAME, q, *sizes, *given)",
    ]
    reason = whole_only(kernel, features)
    if reason:
        lines += [
            "if sequences is not None:",
            f'    came = "{reason}"',
            '    raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")',
        ]
    return lines


def whole_only(kernel: Kernel, features: Features) -> str:
    """Why a kernel takes no sequences of different lengths; nothing if it does."""
    if kernel.attention.layout is not None:
        return "a layout has one length"
    if features.is_ordered:
        return "an order is one of the whole sequence"
    if features.inputs:
        return "inputs are read at positions of the whole sequence"
    if takes_lists(kernel, features):
        return "the tiles of this mask are listed for one length"
    return ""


def _access(features: Features) -> list[str]:
    lines = ["access = access_of(q, k, v)"]
    if features.runs_without_keys:
        lines += ["if n_k == 0:", '    access = "any"']
    if features.is_ordered:
        lines += [
            "ordered = is_ordered(n_q, n_k, q_offset)",
            'if ordered and access == "descriptor":',
            '    access = "aligned"  # rows are gathered by token',
        ]
    return lines


def _tile_lists(kernel: Kernel, features: Features) -> list[str]:
    tables = ["pointers = as_pointers(inputs)"] if features.tables else []
    if not takes_lists(kernel, features):
        return tables
    if not features.lists_data:
        call = "lists = tile_lists(n_q, n_k, q_offset, values, q.device)"
        return [*tables, call]
    ordered = "ordered" if features.is_ordered else "False"
    inputs = "inputs" if features.inputs else "{}"
    sizes = "batch, n_q, n_k, q_offset"
    call = f"lists = tile_lists({sizes}, values, {inputs}, {ordered}, q.device)"
    return [*tables, call]


def _pointers(kernel: Kernel, features: Features) -> list[str]:
    lines = []
    if takes_lists(kernel, features):
        count = 6 if features.is_ordered else 4
        lines.append(f"*lists[:{count}]," if features.lists_data else "*lists,")
    if features.tables:
        lines.append("*pointers,")
    if features.reads_own_value:
        lines.append("v,")
    return lines


def _numbers(features: Features) -> list[str]:
    lines = ["lists[6],"] if features.lists_data else []
    if features.tables:
        lines.append("*as_numbers(pointers),")
    assert bool(lines) == bool(number_names(features))
    return lines


def _start(features: Features) -> dict[str, list[str]]:
    """How a kernel is started: of two, the one that the call asks for."""
    kind = "(q.device, q.dtype, dim, value_dim, access"
    call = "[(programs,)](*arguments, **options, num_stages=stages)"
    if not features.is_ordered:
        return {
            "start": [f"start(programs, arguments, options, stages, {kind}))"],
            "start_head": ["def start(programs, arguments, options, stages, kind):"],
            "call": ["forward_kernel" + call],
        }
    return {
        "start": [
            "kernel = ordered_kernel if ordered else forward_kernel",
            f"kind = {kind}, ordered)",
            "start(kernel, programs, arguments, options, stages, kind)",
        ],
        "start_head": [
            "def start(kernel, programs, arguments, options, stages, kind):"
        ],
        "call": ["kernel" + call],
    }
