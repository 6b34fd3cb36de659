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
from patternc.backends.triton.pairs import has_pairs
from patternc.backends.triton.ranges import MASK_NAMES, printer_of
from patternc.backends.triton.slopes import (
    backward_scale_lines,
    column_slots,
    row_slots,
    use_lines,
)
from patternc.backends.triton.stripe_loops import (
    ABOUT,
    StripeBody,
    bit_lines,
    bounds_lines,
    by_address,
    key_bounds_lines,
    key_lines,
    nth_block,
    stripe_loop_lines,
    tiles_of,
    whole_loop_lines,
)
from patternc.backends.triton.stripes import Striped, has_small_tiles
from patternc.backends.triton.tables import batch_lines, call_lines
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import Weigher, prepare_lines, score_lines
from patternc.ir.nodes import Axis, BoolExpr
from patternc.ir.text import print_expr
from patternc.plan.kernel import Kernel, TileKind

Loads = dict[str, list[str]]
"""The lines that load the tile of `q`, `k`, `v` or `o`; `k_rows` and `v_rows`: by key."""

_INF = 'float("inf")'


def has_gradients(features: Features) -> bool:
    """Whether stripes have gradients of their own: not where scores read inputs.

    Tiles are then listed for the backward pass, as for masks without stripes.
    """
    reads = row_slots(features) or column_slots(features) or has_pairs(features)
    return not reads


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
    before = [*bounds_lines(weigher.kernel, own), *whole_loop_lines(own.kinds)]
    return before, stripe_loop_lines(own, weigher, body)


def key_stripes(
    own: Striped, weigher: Weigher, loads: Loads
) -> tuple[list[str], list[str]]:
    """Of the key gradient: the lines before its loops, and its loops."""
    lines: list[str] = []
    for kind in own.kinds:
        if kind == "column":
            continue
        is_full = kind in ("filled", "block")
        tile_kind = TileKind.FULL if is_full else TileKind.PARTIAL
        holes = {
            "tile": _tile_lines(kind, weigher.kernel, own),
            "load": [*_query_lines(loads), *_row_numbers()],
            "scale": backward_scale_lines(weigher),
            "score": score_lines(weigher, weigher.indent + 4),
            "mask": _key_mask_lines(kind, weigher, own),
            "use": use_lines(weigher, tile_kind, []),
        }
        loop = fill("stripe_reverse_loop", holes).replace("TILE", "t", 1)
        loop = loop.replace("(FIRST, LAST)", f"(first_{kind}, last_{kind})", 1)
        lines += [f"# {ABOUT[kind]}", *loop.rstrip().split("\n")]
    return key_bounds_lines(weigher.kernel, own), lines


def _tile_lines(kind: str, kernel: Kernel, own: Striped) -> list[str]:
    if own.blocks is None or kind not in ("edge", "block"):
        return [f"q0 = k0 + tl.load({kind}_at + t)"]
    per = tiles_of(kernel, own.blocks)[0]
    block, tile = nth_block(kind, per)
    lines = [f"q0 = (first_q_block + {block}) * {own.blocks.block_q}"]
    return lines if per == 1 else [*lines, f"q0 += {tile} * BLOCK_Q"]


def _query_lines(loads: Loads) -> list[str]:
    return [
        "rows = q0 - q_offset + tl.arange(0, BLOCK_Q)",
        "q = (q0 + tl.arange(0, BLOCK_Q))[None, :]",
        *loads["q"],
        *loads["o"],
    ]


def _key_mask_lines(kind: str, weigher: Weigher, own: Striped) -> list[str]:
    if kind == "striped":
        before: list[str] = []
        arguments = ["words_at + t * N_WORDS", "k0 + BLOCK_K - 1 - k"]
        arguments += ["None", "None", "None"]
        arguments += ["BLOCK_K", "BLOCK_Q", "False"]
        if has_small_tiles(weigher.kernel):
            words = ["words_at + t * N_WORDS", "t < last_striped"]
            words += ["None", "None", "None", "False"]
            before = call_lines("bits", "load_bits", words, weigher.indent + 4)
            arguments = ["bits", "k0 + BLOCK_K - 1 - k", "BLOCK_Q", "False"]
        lines = call_lines("keep", "chosen_pairs", arguments, weigher.indent + 4)
        return [*before, *lines, f"s = tl.where(keep, s, -{_INF})"]
    if kind == "edge" and own.blocks is not None:
        lines = _within_lines(weigher.kernel, own.blocks.within, weigher.indent + 4)
        return [*lines, f"s = tl.where(keep, s, -{_INF})"]
    return []


def _within_lines(kernel: Kernel, within: BoolExpr, indent: int) -> list[str]:
    printer = printer_of(kernel, MASK_NAMES)
    lines = printer.assign("keep", within, indent)
    return [f"# tests {print_expr(within)}", *lines]


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
        "is_chosen = on_diagonals(stripe_bits, place, bit, n_words, BLOCK_Q)",
    ]


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
    mask = _within_lines(kernel, own.within, 8)
    keep = "keep"
    if own.has_diagonals:
        mask += _bits_lines()
        keep = "keep & ~is_chosen"
    mask.append(f's = tl.where({keep}, s, float("-inf"))')
    prepare = prepare_lines(weigher)
    holes = {
        "tile": ["q0 = qt * BLOCK_Q"],
        "load": [*_query_lines(loads), *fill("row_numbers").splitlines()],
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
