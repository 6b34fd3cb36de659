"""The loops over chosen diagonals, columns and blocks, as Triton text.

In: the stripes of a kernel (`stripes`), and what is done with a tile. Out: the lines that
say what a query tile visits of them, and the loops. Not its job: finding stripes, the
loops over other tiles (`loops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from patternc.backends.triton.ranges import MASK_NAMES, printer_of
from patternc.backends.triton.stripes import KINDS, Striped, has_small_tiles
from patternc.backends.triton.tables import call_lines
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import (
    Weigher,
    attend_lines,
    scale_lines,
    score_lines,
)
from patternc.ir.nodes import BoolExpr
from patternc.ir.text import print_expr
from patternc.plan.kernel import Blocks, Kernel, TileKind

_IN_LOOP = 8  # the indent of lines in a loop


def bounds_lines(kernel: Kernel, own: Striped) -> list[str]:
    """Before the loops: what the query tile visits of its head's stripes."""
    at = "(stripe_row * n_q_tiles + qt - first_q_tile) * 6"
    lines = [
        "stripe_row = (b * stripe_batch + h).to(tl.int64)",
        *([f"stripe_at = stripe_bounds + {at}"] if own.has_lines else []),
        *_end_lines(own.kinds),
    ]
    if own.has_columns:
        lines += [
            "# Columns are visited BLOCK_K at a time.",
            "column_hi = column_lo + n_column",
            "first_nth, column_lo = column_lo, 0",
            "n_column = (n_column + BLOCK_K - 1) // BLOCK_K",
            *key_lines(),
        ]
    if own.has_both:
        lines += [
            "n_column_words = (n_k + 31) // 32",
            "column_bits = column_words + stripe_row * n_column_words",
        ]
    if own.has_diagonals:
        lines += [*bit_lines(own), *_list_lines("BLOCK_Q", "BLOCK_K", _words(own))]
    if own.has_both:
        lines += [
            "held_keys = stripe_held + stripe_row * (n_diagonals + BLOCK_Q + BLOCK_K)",
            "held_keys += bit_of - q0",
        ]
    if own.blocks is not None:
        lines += block_lines(kernel, own.blocks)
    return lines


def key_bounds_lines(kernel: Kernel, own: Striped) -> list[str]:
    """The same for a key tile, which has no loop over columns."""
    lines = ["stripe_row = (b * stripe_batch + h).to(tl.int64)"]
    if own.has_diagonals:
        lines += [
            "stripe_at = stripe_bounds + (stripe_row * n_k_tiles + kt) * 4",
            *_end_lines(KINDS[:2]),
            *bit_lines(own),
            *_list_lines("BLOCK_K", "BLOCK_Q"),
        ]
    if own.blocks is not None:
        lines += block_lines(kernel, own.blocks, True)
    kinds = [kind for kind in own.kinds if kind != "column"]
    return [*lines, *whole_loop_lines(kinds)] if kinds else []


def block_lines(kernel: Kernel, blocks: Blocks, reverse: bool = False) -> list[str]:
    """The lists of a block, and how many tiles they hold.

    Blocks of queries count from `first_q_block` on, whose number may be negative.
    """
    per_q, per_k = tiles_of(kernel, blocks)
    own, other = ("k", "q") if reverse else ("q", "k")
    place = f"kt // {per_k}" if reverse else f"(qt - first_block_tile) // {per_q}"
    per = per_q if reverse else per_k
    return [
        f"first_block_tile = first_q_block * {per_q}",
        "last_q_tile = first_q_tile + n_q_tiles - 1",
        f"n_q_blocks = (last_q_tile - first_block_tile) // {per_q} + 1",
        f"n_k_blocks = (n_k + {blocks.block_k - 1}) // {blocks.block_k}",
        f"block_row = stripe_row * n_{own}_blocks + {place}",
        f"block_at = stripe_blocks + block_row * n_{other}_blocks",
        f"edge_at = block_at + n_{other}_blocks - 1",
        "edge_lo, block_lo = 0, 0",
        f"n_edge = tl.load(block_ends + block_row * 2) * {per}",
        f"n_block = tl.load(block_ends + block_row * 2 + 1) * {per}",
    ]


def tiles_of(kernel: Kernel, blocks: Blocks) -> tuple[int, int]:
    """How many tiles a block has, along queries and along keys."""
    schedule = kernel.schedule
    return blocks.block_q // schedule.block_q, blocks.block_k // schedule.block_k


def nth_block(kind: str, per: int) -> tuple[str, str]:
    """The block of step `t`, and which of its tiles is meant."""
    sign = "-" if kind == "edge" else "+"
    nth = "t" if per == 1 else f"t // {per}"
    return f"tl.load({kind}_at {sign} {nth}).to(tl.int32)", f"t % {per}"


def whole_loop_lines(kinds: Sequence[str]) -> list[str]:
    """Before loops that no other program takes a share of: from where to where."""
    return [
        f"first_{kind}, last_{kind} = {kind}_lo, {kind}_lo + n_{kind}" for kind in kinds
    ]


def _end_lines(kinds: Sequence[str]) -> list[str]:
    lines = []
    for kind in kinds:
        at = 2 * KINDS.index(kind)
        if kind not in KINDS[:3]:
            continue
        lines += [
            f"{kind}_lo = tl.load(stripe_at + {at})",
            f"n_{kind} = tl.load(stripe_at + {at + 1}) - {kind}_lo",
        ]
    return lines


def key_lines() -> list[str]:
    """The chosen keys of a head, and how rows of keys are loaded."""
    return [
        "stripe_keys = stripe_columns + stripe_row * n_k",
        'ROW_ACCESS: tl.constexpr = "any" if ACCESS == "any" else "aligned"',
    ]


def bit_lines(own: Striped) -> list[str]:
    """The bits of a head's diagonals."""
    return [
        "n_diagonals = n_q + n_k - 1",
        "n_words = (n_diagonals + 31) // 32",
        "stripe_bits = stripe_words + stripe_row * n_words",
        "# The bit of the pair q, k is bit_of + k - q.",
        "bit_of = q_offset + n_q - 1",
    ]


def _list_lines(own: str, other: str, words: str = "N_WORDS") -> list[str]:
    """The lists of tiles: `own` block is that of the program, `other` that they have."""
    return [
        f"n_stripe_tiles = (n_diagonals + {own} + {other} - 2) // {other} + 1",
        "striped_at = stripe_tiles + stripe_row * 2 * n_stripe_tiles",
        "N_WORDS: tl.constexpr = (BLOCK_Q + 63) // 64 + (BLOCK_K + 63) // 64",
        f"words_at = tile_words + stripe_row * n_stripe_tiles * {words}",
        "filled_at = striped_at + n_stripe_tiles",
    ]


def first_bits_lines(own: Striped) -> list[str]:
    """Before the loop over PARTIAL tiles of diagonals: the bits of the first one."""
    return [
        "is_tile = first_striped < last_striped",
        "next_k0 = q0 + tl.load(striped_at + first_striped, mask=is_tile, other=0)",
        *_bits_lines(own, "first_striped", _IN_LOOP - 4),
    ]


def _next_bits_lines(own: Striped) -> list[str]:
    """In that loop: the bits of the next tile."""
    return [
        "is_tile = t + 1 < last_striped",
        "next_k0 = q0 + tl.load(striped_at + t + 1, mask=is_tile, other=0)",
        *_bits_lines(own, "(t + 1)", _IN_LOOP),
    ]


def _bits_lines(own: Striped, nth: str, indent: int) -> list[str]:
    columns = ["None", "None", "None"]
    if own.has_both:
        columns = ["column_bits", "next_k0", "n_column_words"]
    arguments = [f"words_at + {nth} * {_words(own)}", "is_tile"]
    arguments += [*columns, str(own.has_both)]
    return call_lines("bits", "load_bits", arguments, indent)


def diagonal_test_lines(kernel: Kernel, own: Striped) -> list[str]:
    """Hides the pairs of a tile of diagonals that are neither on one nor in a column."""
    columns = ["column_bits", "k0", "n_column_words"] if own.has_both else ["None"] * 3
    first = "q0 + BLOCK_Q - 1 - q"  # rows may be queries of several heads
    is_small = has_small_tiles(kernel)
    arguments = [f"words_at + t * {_words(own)}", first, *columns]
    arguments += ["BLOCK_Q", "BLOCK_K", str(own.has_both)]
    if is_small:
        arguments = ["bits", first, "BLOCK_K", str(own.has_both)]
    return [
        *call_lines("keep", "chosen_pairs", arguments, _IN_LOOP),
        *(_next_bits_lines(own) if is_small else []),
        's = tl.where(keep, s, float("-inf"))',
        "if (k0 < 0) | (k0 + BLOCK_K > n_k):",
        '    s = tl.where((k >= 0) & (k < n_k), s, float("-inf"))',
    ]


def _words(own: Striped) -> str:
    return "(2 * N_WORDS)" if own.has_both else "N_WORDS"


def column_test_lines(kernel: Kernel, within: BoolExpr, indent: int) -> list[str]:
    """Hides the pairs of columns, or of a block, that count not."""
    printer = printer_of(kernel, MASK_NAMES)
    return [
        f"# tests {print_expr(within)}",
        *printer.assign("keep", within, indent),
        's = tl.where(keep & (k < n_k), s, float("-inf"))',
    ]


@dataclass(frozen=True, slots=True)
class StripeBody:
    """What is done with a tile of stripes: `Body` of other loops, less its template.

    `rows` loads rows of keys by address in place of the tile; `use` and `use_rows` follow
    the logits of a tile and of such rows.
    """

    load: list[str]
    rows: list[str]
    scale: list[str]
    use: dict[TileKind, list[str]]
    use_rows: list[str]


def forward_stripe_body(weigher: Weigher) -> StripeBody:
    """The softmax so far, and more keys."""
    return StripeBody(
        fill("keys").splitlines(),
        by_address(fill("gather_keys").splitlines()[3:]),
        scale_lines(weigher),
        {kind: attend_lines(weigher, kind) for kind in TileKind},
        by_address(attend_lines(replace(weigher, ordered=True))),
    )


def by_address(lines: list[str]) -> list[str]:
    """Rows of keys and values are no tiles: a descriptor does not load them."""
    other = {"k_source,": "key_rows,", "v_source,": "value_rows,"}
    other |= {"ACCESS,": "ROW_ACCESS,"}
    return [
        line.replace(line.strip(), other.get(line.strip(), line.strip())).replace(
            "gather_rows(", "load_rows("
        )
        for line in lines
    ]


def stripe_loop_lines(own: Striped, weigher: Weigher, body: StripeBody) -> list[str]:
    """The loops over what is chosen, by the order of its kinds."""
    lines: list[str] = []
    for kind in own.kinds:
        is_column = kind == "column"
        is_full = kind in ("filled", "block")
        tile_kind = TileKind.FULL if is_full else TileKind.PARTIAL
        holes = {
            "tile": _tile_lines(kind, weigher.kernel, own),
            "load": body.rows if is_column else body.load,
            "scale": body.scale,
            "score": score_lines(weigher, _IN_LOOP),
            "mask": _mask_lines(kind, weigher.kernel, own),
            "use": body.use_rows if is_column else body.use[tile_kind],
        }
        loop = fill("stripe_loop", holes)
        loop = loop.replace("(FIRST, LAST)", f"(first_{kind}, last_{kind})", 1)
        if kind == "striped" and has_small_tiles(weigher.kernel):
            lines += first_bits_lines(own)
        lines += [f"# {ABOUT[kind]}", *loop.rstrip("\n").split("\n")]
    return lines


ABOUT = {
    "striped": "PARTIAL tiles of diagonals",
    "filled": "FULL tiles of diagonals",
    "column": "columns",
    "edge": "tiles of PARTIAL blocks",
    "block": "tiles of FULL blocks",
}


def _tile_lines(kind: str, kernel: Kernel, own: Striped) -> list[str]:
    if kind == "column":
        return _rows_lines(own)
    first = [f"k0 = q0 + tl.load({kind}_at + t)"]
    if own.blocks is not None and kind in ("edge", "block"):
        per = tiles_of(kernel, own.blocks)[1]
        block, tile = nth_block(kind, per)
        first = [f"k0 = {block} * {own.blocks.block_k}"]
        first += [] if per == 1 else [f"k0 += {tile} * BLOCK_K"]
    return [*first, "k = k0 + tl.arange(0, BLOCK_K)[None, :]"]


def _rows_lines(own: Striped) -> list[str]:
    lines = [
        "nth = first_nth + t * BLOCK_K + tl.arange(0, BLOCK_K)",
        "k_rows = tl.load(stripe_keys + nth, mask=nth < column_hi, other=n_k)",
    ]
    if not own.has_diagonals:
        return [*lines, "k = k_rows[None, :]"]
    return [
        *lines,
        "# What a tile of diagonals holds was visited there.",
        "held_at = held_keys + k_rows",
        "is_held = tl.load(held_at, mask=k_rows < n_k, other=0) > 0",
        "k = tl.where(is_held, n_k, k_rows)[None, :]",
    ]


def _mask_lines(kind: str, kernel: Kernel, own: Striped) -> list[str]:
    if kind == "column":
        return column_test_lines(kernel, own.within, _IN_LOOP)
    if kind == "striped":
        return diagonal_test_lines(kernel, own)
    if kind == "edge" and own.blocks is not None:
        return column_test_lines(kernel, own.blocks.within, _IN_LOOP)
    if kind == "block":
        inside = 's = tl.where(k < n_k, s, float("-inf"))'
        return ["if k0 + BLOCK_K > n_k:", f"    {inside}"]
    inside = 's = tl.where((k >= 0) & (k < n_k), s, float("-inf"))'
    return ["if (k0 < 0) | (k0 + BLOCK_K > n_k):", f"    {inside}"]
