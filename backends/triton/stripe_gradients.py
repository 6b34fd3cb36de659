"""The gradients of chosen diagonals and columns, as Triton text.

In: the stripes of a kernel (`stripes`). Out: what the query and the key gradient kernel
do with them, and `column_gradient_kernel`. Not its job: those kernels (`backward`),
their launchers (`gradients`).

The query gradient visits what the forward pass visits. A key tile visits tiles of
queries that its diagonals need, by lists of its own; chosen columns, of which a key tile
has few, are gathered again: BLOCK_K of them make a program, which goes over the queries
that they count for, less the pairs on chosen diagonals, and adds to the rows of its keys.
"""

from __future__ import annotations

from patternc.backends.triton.features import Features
from patternc.backends.triton.ranges import MASK_NAMES, printer_of
from patternc.backends.triton.slopes import (
    backward_scale_lines,
    column_slots,
    row_slots,
    use_lines,
)
from patternc.backends.triton.stripe_loops import (
    StripeBody,
    bit_lines,
    bounds_lines,
    by_address,
    key_bounds_lines,
    key_lines,
    stripe_loop_lines,
    whole_loop_lines,
)
from patternc.backends.triton.stripes import Striped
from patternc.backends.triton.tables import batch_lines
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import Weigher, prepare_lines, score_lines
from patternc.ir.nodes import Axis
from patternc.ir.text import print_expr
from patternc.plan.kernel import Kernel, TileKind

Loads = dict[str, list[str]]
"""The lines that load the tile of `q`, `k`, `v` or `o`; `k_rows` and `v_rows`: by key."""

_INF = 'float("inf")'


def has_gradients(features: Features) -> bool:
    """Whether stripes have gradients of their own: not where scores read inputs.

    Tiles are then listed for the backward pass, as for masks without stripes.
    """
    return not (row_slots(features) or column_slots(features))


def query_stripes(
    own: Striped, weigher: Weigher, loads: Loads
) -> tuple[list[str], list[str]]:
    """Of the query gradient: the lines before its loops, and its loops."""
    kinds = {kind: use_lines(weigher, kind, loads["v"]) for kind in TileKind}
    body = StripeBody(
        loads["k"],
        by_address(loads["k_rows"]),
        backward_scale_lines(weigher),
        kinds,
        by_address(use_lines(weigher, TileKind.PARTIAL, loads["v_rows"])),
    )
    before = [*bounds_lines(own), *whole_loop_lines(own.kinds)]
    return before, stripe_loop_lines(own, weigher, body)


def key_stripes(
    own: Striped, weigher: Weigher, loads: Loads
) -> tuple[list[str], list[str]]:
    """Of the key gradient: the lines before its loops, and its loops."""
    lines: list[str] = []
    for kind in ("striped", "filled") if own.has_diagonals else ():
        tile_kind = TileKind.FULL if kind == "filled" else TileKind.PARTIAL
        load = [
            "rows = q0 - q_offset + tl.arange(0, BLOCK_Q)",
            "q = (q0 + tl.arange(0, BLOCK_Q))[None, :]",
            *loads["q"],
            *loads["o"],
            *_row_numbers(),
        ]
        holes = {
            "tile": [f"q0 = k0 + tl.load({kind}_at + t)"],
            "load": load,
            "scale": backward_scale_lines(weigher),
            "score": score_lines(weigher, weigher.indent + 4),
            "mask": _diagonal_lines("bit") if kind == "striped" else [],
            "use": use_lines(weigher, tile_kind, []),
        }
        loop = fill("stripe_reverse_loop", holes).replace("TILE", "t", 1)
        loop = loop.replace("(FIRST, LAST)", f"(first_{kind}, last_{kind})", 1)
        lines += [f"# {tile_kind.name} tiles of diagonals", *loop.rstrip().split("\n")]
    return key_bounds_lines(own), lines


def _row_numbers() -> list[str]:
    """What `delta_kernel` stored for each row, of a tile that begins anywhere."""
    return [
        "first_at = (b * HEADS + h).to(tl.int64) * n_q_tiles * BLOCK_Q",
        "places = q0 - first_q_tile * BLOCK_Q + tl.arange(0, BLOCK_Q)",
        "is_row = (places >= 0) & (places < n_q_tiles * BLOCK_Q)",
        f"row_shift = tl.load(shift_source + first_at + places, is_row, {_INF})",
        "row_delta = tl.load(delta_source + first_at + places, is_row, 0.0)",
    ]


def _bits_lines() -> list[str]:
    """`is_chosen`: whether the pairs of a tile that lies on its side are on diagonals."""
    return [
        "# Bits of a key count from the tile's last query on.",
        "bit = BLOCK_Q - 1 - tl.arange(0, BLOCK_Q)[None, :]",
        "place = bit_of + k - (q0 + BLOCK_Q - 1)",
        "found = bits_from(stripe_bits, place, n_words)",
        "for at in tl.static_range(32, BLOCK_Q, 32):",
        "    more = bits_from(stripe_bits, place + at, n_words)",
        "    found = tl.where(bit < at, found, more)",
        "is_chosen = ((found >> (bit & 31).to(tl.uint32)) & 1) != 0",
    ]


def _diagonal_lines(name: str) -> list[str]:
    return [*_bits_lines(), 's = tl.where(is_chosen, s, float("-inf"))']


def column_gradient_text(
    kernel: Kernel,
    features: Features,
    own: Striped,
    arguments: dict[str, list[str]],
    factor: list[str],
    loads: Loads,
) -> str:
    """`column_gradient_kernel`; `arguments` are those of the key gradient."""
    weigher = Weigher(kernel, features, False, Axis.QUERY)
    printer = printer_of(kernel, MASK_NAMES)
    mask = [
        f"# tests {print_expr(own.within)}",
        *printer.assign("keep", own.within, 8),
    ]
    keep = "keep"
    if own.has_diagonals:
        mask += _bits_lines()
        keep = "keep & ~is_chosen"
    mask.append(f's = tl.where({keep}, s, float("-inf"))')
    prepare = prepare_lines(weigher)
    holes = {
        "tile": ["q0 = qt * BLOCK_Q"],
        "load": [
            "rows = q0 - q_offset + tl.arange(0, BLOCK_Q)",
            "q = (q0 + tl.arange(0, BLOCK_Q))[None, :]",
            *loads["q"],
            *loads["o"],
            *fill("row_numbers").splitlines(),
        ],
        "scale": backward_scale_lines(weigher),
        "score": score_lines(weigher, 8),
        "mask": mask,
        "use": use_lines(weigher, TileKind.PARTIAL, []),
    }
    loop = fill("stripe_reverse_loop", holes).replace("TILE", "qt", 1)
    loop = loop.replace("(FIRST, LAST)", "(first, end)", 1)
    unspecialised = [*arguments["unspecialised"], '"member",']
    return fill(
        "column_gradient",
        {
            **arguments,
            "unspecialised": unspecialised,
            "factor": factor,
            "keys": [
                *key_lines(),
                *(bit_lines(own) if own.has_diagonals else []),
                "nth = column_lo + tl.arange(0, BLOCK_K)",
                "k_rows = tl.load(stripe_keys + nth, mask=nth < column_hi, other=n_k)",
                "k = k_rows[:, None]",
                *by_address(loads["k_rows"]),
                *by_address(loads["v_rows"]),
            ],
            "batch": batch_lines(features.tables),
            "prepare": prepare,
            "loop": loop.rstrip().split("\n"),
        },
    )
