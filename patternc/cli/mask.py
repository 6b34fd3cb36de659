"""`patternc mask FILE`: the mask of one head, as numbers, a picture or a file.

In: a program, an attention, sizes, a head. Out: with --digest one JSON line, otherwise
a picture in the terminal; --out writes a PNG or an .npy file too. The mask comes from
the meaning of the program (--via reference) or from the tile schedule alone
(--via plan); both must agree. Needs no torch. Not its job: attention values.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patternc import driver
from patternc.check import lower
from patternc.cli.files import write_whole
from patternc.cli.options import (
    add_entry,
    add_program,
    head,
    length,
    offset,
    values_of,
)
from patternc.cli.report import UsageError
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention
from patternc.picture import mask_png, terminal_picture
from patternc.plan.expand import plan_mask
from patternc.syntax.load import read_source
from patternc.syntax.parse import parse

Bools = NDArray[np.bool_]

DEFAULT_LENGTH = 512
TILE = 64
"""The side of the tiles that are counted, whatever tiles a kernel uses."""

MOST_PAIRS = 2**31
"""One byte for each pair: the largest mask takes 2 GiB."""

_PAIRS_AT_ONCE = 2**21


@dataclass(frozen=True, slots=True)
class TileCounts:
    """How many 64 x 64 tiles of a mask are of each kind."""

    empty: int
    partial: int
    full: int


@dataclass(frozen=True, slots=True)
class Digest:
    """What identifies a mask; the names are those of the JSON line.

    `sha256`: the first 12 hex digits of the hash of the packed bits, row by row.
    """

    visible: int
    density: float
    tiles: TileCounts
    empty_rows: int
    sha256: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --entry, --set, sizes, --head, --digest, --via and --out."""
    add_program(parser)
    add_entry(parser)
    parser.add_argument(
        "--q-len", type=length, metavar="N", help="number of queries (default: --k-len)"
    )
    parser.add_argument(
        "--k-len",
        type=length,
        default=DEFAULT_LENGTH,
        metavar="N",
        help=f"number of keys (default: {DEFAULT_LENGTH})",
    )
    parser.add_argument(
        "--q-offset",
        type=offset,
        metavar="N",
        help="position of the first query (default: k-len minus q-len)",
    )
    parser.add_argument(
        "--head", type=head, default=0, metavar="H", help="the query head (default: 0)"
    )
    parser.add_argument(
        "--digest", action="store_true", help="print one JSON line and no picture"
    )
    parser.add_argument(
        "--via",
        choices=("reference", "plan"),
        default="reference",
        help="from the program's meaning (default), or from the tile schedule",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="also write m.png or m.npy"
    )


def run(args: argparse.Namespace) -> int:
    """Make the mask, then show, count or write it."""
    q_len = args.k_len if args.q_len is None else args.q_len
    if q_len * args.k_len > MOST_PAIRS:
        raise UsageError(
            f"a mask of {q_len} x {args.k_len} pairs is too large to list;"
            f" at most {MOST_PAIRS} pairs"
        )
    if args.out is not None and args.out.suffix not in (".png", ".npy"):
        raise UsageError(f"--out {args.out}: expected a name that ends in .png or .npy")
    mask = _mask(args, q_len)
    if args.out is not None:
        write_whole(args.out, _content(args.out.suffix, mask))
    found = digest(mask)
    if args.digest:
        print(json.dumps(asdict(found)))
        return 0
    print(terminal_picture(mask))
    print(
        f"head {args.head}: {found.visible} of {mask.size} pairs visible,"
        f" density {found.density:.6f}, {found.empty_rows} empty rows"
    )
    tiles = ", ".join(f"{count} {kind}" for kind, count in asdict(found.tiles).items())
    print(f"tiles of {TILE} x {TILE}: {tiles}")
    return 0


def digest(mask: Bools) -> Digest:
    """What identifies a mask [n_q, n_k] that has at least one pair."""
    visible = int(np.count_nonzero(mask))
    packed = np.packbits(mask, axis=None).tobytes()
    return Digest(
        visible=visible,
        density=visible / mask.size,
        tiles=tile_counts(mask),
        empty_rows=int(np.count_nonzero(~mask.any(axis=1))),
        sha256=hashlib.sha256(packed).hexdigest()[:12],
    )


def tile_counts(mask: Bools) -> TileCounts:
    """The tiles of a mask [n_q, n_k] by kind.

    A tile covers 64 x 64 pairs from the first row and column on; the last ones are
    judged by the pairs that exist.
    """
    rows = np.arange(0, mask.shape[0], TILE)
    columns = np.arange(0, mask.shape[1], TILE)
    by_rows = np.add.reduceat(mask, rows, axis=0, dtype=np.int64)
    seen = np.add.reduceat(by_rows, columns, axis=1)
    heights = np.minimum(mask.shape[0] - rows, TILE)
    widths = np.minimum(mask.shape[1] - columns, TILE)
    sizes = heights[:, None] * widths[None, :]
    empty = int(np.count_nonzero(seen == 0))
    full = int(np.count_nonzero(seen == sizes))
    return TileCounts(empty, seen.size - empty - full, full)


def _mask(args: argparse.Namespace, q_len: int) -> Bools:
    """The mask [q_len, k_len] of the head that was asked for."""
    source = read_source(args.file)
    values = values_of(args.set)
    q_offset = args.k_len - q_len if args.q_offset is None else args.q_offset
    if args.via == "plan":
        kernel = driver.compile_source(source, args.entry, values)
        _require_head(args.head, kernel.attention)
        params = defaults(kernel.attention)
        return plan_mask(kernel, args.head, q_len, args.k_len, q_offset, params)
    attention = lower(parse(source), args.entry, values)
    _require_head(args.head, attention)
    return _reference_mask(attention, args.head, q_len, args.k_len, q_offset)


def _require_head(wanted: int, attention: Attention) -> None:
    if wanted >= attention.heads:
        raise UsageError(
            f"--head {wanted}: {attention.name} has the heads"
            f" 0 to {attention.heads - 1}"
        )


def _reference_mask(
    attention: Attention, wanted: int, q_len: int, k_len: int, q_offset: int
) -> Bools:
    """`dense_mask` in slices of rows: its integers take eight bytes a pair."""
    expr = attention.case_of(wanted).mask
    params = defaults(attention)
    height = max(1, _PAIRS_AT_ONCE // k_len)
    mask = np.empty((q_len, k_len), dtype=np.bool_)
    for first in range(0, q_len, height):
        rows = min(height, q_len - first)
        mask[first : first + rows] = dense_mask(
            expr, wanted, rows, k_len, q_offset + first, params
        )
    return mask


def defaults(attention: Attention) -> dict[str, int]:
    """The run-time parameters' values: --set ones have become defaults by now."""
    missing = [param.name for param in attention.params if param.default is None]
    if missing:
        raise UsageError(f"{attention.name} needs --set {missing[0]}=VALUE")
    return {p.name: p.default for p in attention.params if p.default is not None}


def _content(suffix: str, mask: Bools) -> bytes:
    if suffix == ".png":
        return mask_png(mask)
    buffer = io.BytesIO()
    np.save(buffer, mask, allow_pickle=False)
    return buffer.getvalue()
