"""The loops over chosen diagonals and columns, as Triton text.

In: the stripes of a kernel (`stripes`), and what is done with a tile. Out: the lines that
say what a query tile visits of them, and the loops. Not its job: finding stripes, the
loops over other tiles (`loops`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from patternc.backends.triton.ranges import MASK_NAMES, printer_of
from patternc.backends.triton.stripes import KINDS, Striped
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import (
    Weigher,
    attend_lines,
    scale_lines,
    score_lines,
)
from patternc.ir.text import print_expr
from patternc.plan.kernel import Kernel, TileKind

_IN_LOOP = 8  # the indent of lines in a loop


def bounds_lines(own: Striped) -> list[str]:
    """Before the loops: what the query tile visits of its head's stripes."""
    lines = [
        "stripe_row = (b * stripe_batch + h).to(tl.int64)",
        "stripe_at = stripe_bounds + (stripe_row * n_q_tiles + qt - first_q_tile) * 6",
    ]
    for at, kind in enumerate(KINDS):
        if kind in own.kinds:
            lines += [
                f"{kind}_lo = tl.load(stripe_at + {2 * at})",
                f"n_{kind} = tl.load(stripe_at + {2 * at + 1}) - {kind}_lo",
            ]
    if own.has_columns:
        lines += [
            "# Columns are visited BLOCK_K at a time.",
            "column_hi = column_lo + n_column",
            "n_column = (n_column + BLOCK_K - 1) // BLOCK_K",
            "stripe_keys = stripe_columns + stripe_row * n_k",
            'ROW_ACCESS: tl.constexpr = "any" if ACCESS == "any" else "aligned"',
        ]
    if own.has_diagonals:
        lines += [
            "n_diagonals = n_q + n_k - 1",
            "n_words = (n_diagonals + 31) // 32",
            "stripe_bits = stripe_words + stripe_row * n_words",
            "# The bit of the pair q, k is bit_of + k - q.",
            "bit_of = q_offset + n_q - 1",
            "n_stripe_tiles = (n_diagonals + BLOCK_Q + BLOCK_K - 2) // BLOCK_K + 1",
            "striped_at = stripe_tiles + stripe_row * 2 * n_stripe_tiles",
            "filled_at = stripe_tiles + (stripe_row * 2 + 1) * n_stripe_tiles",
        ]
    return lines


def diagonal_test_lines() -> list[str]:
    """Hides the pairs of a tile of diagonals whose diagonal is not chosen."""
    return [
        "within = tl.arange(0, BLOCK_K)[None, :]",
        "keep = chosen(stripe_bits, bit_of + k0 - q, within, n_words, BLOCK_K)",
        "keep &= (k >= 0) & (k < n_k)",
        's = tl.where(keep, s, float("-inf"))',
    ]


def column_test_lines(kernel: Kernel, own: Striped, indent: int) -> list[str]:
    """Hides the pairs of columns that count not, or stand on a chosen diagonal."""
    printer = printer_of(kernel, MASK_NAMES)
    lines = [f"# tests {print_expr(own.within)}"]
    lines += printer.assign("keep", own.within, indent)
    lines.append("keep = keep & (k < n_k)")
    if own.has_diagonals:
        lines += [
            "# Bits of a column count from the tile's last query on.",
            "q_last = q0 + BLOCK_Q - 1",
            "bit = bit_of + k - q_last",
            "keep &= ~chosen(stripe_bits, bit, q_last - q, n_words, BLOCK_Q)",
        ]
    return [*lines, 's = tl.where(keep, s, float("-inf"))']


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
    use = attend_lines(weigher)
    return StripeBody(
        fill("keys").splitlines(),
        _by_address(fill("gather_keys").splitlines()[3:]),
        scale_lines(weigher),
        dict.fromkeys(TileKind, use),
        _by_address(attend_lines(replace(weigher, ordered=True))),
    )


def _by_address(lines: list[str]) -> list[str]:
    """Rows of keys and values are no tiles: a descriptor does not load them."""
    other = {"k_source,": "key_rows,", "v_source,": "value_rows,"}
    other |= {"ACCESS,": "ROW_ACCESS,"}
    return [
        line.replace(line.strip(), other.get(line.strip(), line.strip()))
        for line in lines
    ]


def stripe_loop_lines(own: Striped, weigher: Weigher, body: StripeBody) -> list[str]:
    """The loops over PARTIAL tiles of diagonals, FULL ones, and columns."""
    lines: list[str] = []
    for kind in own.kinds:
        is_column = kind == "column"
        tile_kind = TileKind.FULL if kind == "filled" else TileKind.PARTIAL
        holes = {
            "tile": _rows_lines() if is_column else _tile_lines(kind),
            "load": body.rows if is_column else body.load,
            "scale": body.scale,
            "score": score_lines(weigher, _IN_LOOP),
            "mask": _mask_lines(kind, weigher.kernel, own),
            "use": body.use_rows if is_column else body.use[tile_kind],
        }
        loop = fill("stripe_loop", holes)
        loop = loop.replace("(FIRST, LAST)", f"(first_{kind}, last_{kind})", 1)
        lines += [f"# {_ABOUT[kind]}", *loop.rstrip("\n").split("\n")]
    return lines


_ABOUT = {
    "striped": "PARTIAL tiles of diagonals",
    "filled": "FULL tiles of diagonals",
    "column": "columns",
}


def _tile_lines(kind: str) -> list[str]:
    return [
        f"k0 = q0 + tl.load({kind}_at + t)",
        "k = k0 + tl.arange(0, BLOCK_K)[None, :]",
    ]


def _rows_lines() -> list[str]:
    return [
        "nth = column_lo + t * BLOCK_K + tl.arange(0, BLOCK_K)",
        "k_rows = tl.load(stripe_keys + nth, mask=nth < column_hi, other=n_k)",
        "k = k_rows[None, :]",
    ]


def _mask_lines(kind: str, kernel: Kernel, own: Striped) -> list[str]:
    if kind == "column":
        return column_test_lines(kernel, own, _IN_LOOP)
    if kind == "striped":
        return diagonal_test_lines()
    inside = 's = tl.where((k >= 0) & (k < n_k), s, float("-inf"))'
    return ["if (k0 < 0) | (k0 + BLOCK_K > n_k):", f"    {inside}"]
