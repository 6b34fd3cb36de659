"""Chosen diagonals and columns on Hopper, as Gluon and Python text.

In: a planned kernel all of whose covers choose diagonals and perhaps columns, on the
tiles of the kernel for Hopper. Out: the text of `hopper_kernel` for it and of its
launch. Not its job: which diagonals and columns are chosen (`backends.triton.stripes`).

A cluster of chosen diagonals brings few keys to a query tile, and a tile of 128 keys
around them would be mostly empty. Here a step has granules of 16 keys, from wherever
they are needed, and half a query tile does not compute those that only the other half
needs. Chosen columns come from a copy of their rows of K and V, 128 at a time; a pair
on a chosen diagonal too is seen there, and hidden among the diagonals.
"""

from __future__ import annotations

import re

from patternc.backends.hopper.route import Route
from patternc.backends.triton.ranges import MASK_NAMES, printer_of
from patternc.backends.triton.stripes import Striped
from patternc.backends.triton.template import fill, read
from patternc.ir.text import print_expr

SHARED = ("place_of", "soften", "multiply_keys", "multiply_values")
"""Functions of the kernel of other programs that this one calls, too."""

_INDENT = 4


def kernel_text(route: Route, own: Striped) -> str:
    """`hopper_kernel` for chosen diagonals and columns, and what it calls."""
    kernel = route.kernel
    params = [f"p_{param.name}" for param in kernel.attention.params]
    arguments = [f"{name}," for name in params]
    within = ["keep = k == k"]
    if own.has_columns:
        printer = printer_of(kernel, MASK_NAMES)
        within = printer.assign("keep", own.within, _INDENT)
        within = [f"# tests {print_expr(own.within)}", *within]
    text = fill(
        "stripes",
        {
            "params": arguments,
            "within": within,
            "param_names": [f'"{name}",' for name in params],
            "typed_params": [f"{name}: tl.int32," for name in params],
            "partitions": [
                *_partition("consume_stripes", _consumer(params, 0)),
                *_partition("consume_stripes", _consumer(params, 1)),
                *_partition("produce_stripes", _PRODUCER),
            ],
        },
        __package__,
    )
    return "\n\n".join([*map(_shared, SHARED), text])


def launch_text(own: Striped) -> str:
    """What launches it."""
    constant = f"HAS_COLUMNS = {own.has_columns}\n"
    return f"{constant}\n\n{fill('stripe_launch', package=__package__)}"


def _shared(name: str) -> str:
    """One function of the kernel of other programs."""
    pattern = rf"^@gluon\.jit\ndef {name}\(.*?(?=\n\n\n|\Z)"
    found = re.search(pattern, read("kernel.py.tmpl", __package__), _FLAGS)
    assert found is not None
    return found[0] + "\n"


_FLAGS = re.DOTALL | re.MULTILINE

_BUFFERS = ["q_buffer", "k_buffer", "v_buffer"]
_BARRIERS = ["filled", "freed"]
_SIZES = ["q_offset", "first_q_tile", "n_q_tiles", "together"]
_GRANULES = ["n_granules", "first_granule", "stripe_batch"]

_PRODUCER = [
    *("q_source", "k_source", "v_source", "column_keys", "column_values"),
    *_BUFFERS,
    *_BARRIERS,
    *("bounds", "granules", "n_k"),
    *_SIZES,
    *_GRANULES,
    *("HEADS", "GROUP_SIZE", "HEAD_DIM", "VALUE_DIM", "BLOCK_Q", "BLOCK_K", "STAGES"),
]


def _consumer(params: list[str], part: int) -> list[str]:
    return [
        *("o_source", "output", "lse", "spoiled"),
        *_BUFFERS,
        "o_buffer",
        *_BARRIERS,
        *("bounds", "granules", "words", "columns", "diagonals", "n_q", "n_k"),
        *_SIZES,
        *("first_exact_tile", "n_exact_tiles"),
        *_GRANULES,
        "scale_log2",
        *params,
        str(part),
        *("HEADS", "HEAD_DIM", "VALUE_DIM", "BLOCK_Q", "BLOCK_K", "EXACT_Q", "STAGES"),
        "HAS_COLUMNS",
    ]


def _partition(function: str, arguments: list[str]) -> list[str]:
    inner = [f"        {name}," for name in arguments]
    return ["(", f"    {function},", "    (", *inner, "    ),", "),"]
