"""The kernel for Hopper over chosen diagonals and columns, as Gluon text.

In: a planned kernel whose heads all choose diagonals and columns, on the tiles of that
kernel. Out: the text of the kernel and of its launch. Not its job: finding and listing
stripes (`backends.triton.stripes`), chosen blocks (`block_steps`).

Keys and values are loaded once for both halves of a query tile, for each of which a
PARTIAL tile is as likely to hold nothing as not: tiles of 64 rows that load their own
wait for the cache.
"""

from __future__ import annotations

from patternc.backends.triton.features import Features
from patternc.backends.triton.kernels import number_names
from patternc.backends.triton.stripe_loops import column_test_lines
from patternc.backends.triton.stripes import Striped, striped
from patternc.backends.triton.template import fill
from patternc.plan.kernel import Kernel

BLOCK_K = 64
"""Keys of a step: tiles of diagonals that begin at any key are seldom wider."""

STAGES = 5
"""Steps that are loaded ahead: as many as shared memory holds beside the queries."""

IMPORTS = """\
from triton.experimental.gluon.language.nvidia.ampere import async_copy
"""

_LISTS = ["stripe_tiles", "tile_words", "stripe_held", "stripe_columns"]
_LISTS += ["column_words", "stripe_bounds"]
_STRIDES = [f"stride_{x}{axis}" for x in "kv" for axis in "bhn"]
_SIZES = ["n_q", "n_k", "q_offset", "first_q_tile", "n_q_tiles", "together"]
_BUFFERS = ["q_buffer", "k_buffer", "v_buffer"]
_BARRIERS = ["filled", "freed"]
_CONSTANTS = ["HEAD_DIM", "VALUE_DIM", "BLOCK_Q", "BLOCK_K", "STAGES"]


def stripes_of(kernel: Kernel) -> Striped | None:
    """The diagonals and columns of a kernel that visits nothing else, or None."""
    found = striped(kernel)
    if found is None or not found.has_both or found.blocks is not None:
        return None
    return found if len(found.covers) == len(kernel.covers) else None


def kernel_text(kernel: Kernel, features: Features, own: Striped) -> str:
    """`hopper_kernel` and what it calls."""
    typed = [(f"p_{param.name}", "tl.int32") for param in kernel.attention.params]
    typed += number_names(features)
    params = [name for name, _ in typed if name.startswith("p_")]
    return fill(
        "stripes",
        {
            "params": [f"{name}," for name in params],
            "arguments": [f"{name}," for name in params],
            "hide": column_test_lines(kernel, own.within, 4),
            "param_names": [f'"{name}",' for name, _ in typed],
            "typed_params": [f"{name}: {kind}," for name, kind in typed],
            "partitions": [
                *_partition("consume", _consumer(params, 0)),
                *_partition("consume", _consumer(params, 1)),
                *_partition("produce", _producer()),
            ],
        },
        __package__,
    )


def launch_text() -> str:
    """What launches it."""
    return fill("striped", package=__package__)


def _consumer(params: list[str], part: int) -> list[str]:
    return [
        *("o_source", "output", "lse"),
        *_BUFFERS,
        "o_buffer",
        *_BARRIERS,
        *_LISTS,
        *_SIZES,
        *("scale_log2", "stripe_batch"),
        *params,
        *(str(part), "HEADS", *_CONSTANTS),
    ]


def _producer() -> list[str]:
    return [
        *("q_source", "k_source", "v_source", "key_rows", "value_rows"),
        *_BUFFERS,
        *_BARRIERS,
        *("stripe_tiles", "stripe_columns", "stripe_bounds"),
        *_STRIDES,
        *_SIZES,
        "stripe_batch",
        *("HEADS", "GROUP_SIZE", *_CONSTANTS),
    ]


def _partition(function: str, arguments: list[str]) -> list[str]:
    inner = [f"        {name}," for name in arguments]
    return ["(", f"    {function},", "    (", *inner, "    ),", "),"]
