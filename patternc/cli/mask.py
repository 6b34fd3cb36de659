"""`patternc mask FILE`: the mask of one head, as numbers, a picture or a file.

In: a program, an attention, sizes, a head, files of its inputs. Out: with --digest one
JSON line, otherwise a picture in the terminal; --out writes a PNG or an .npy file too.
The mask comes from the meaning of the program (--via reference) or from the tile
schedule alone (--via plan); both must agree. With --check the asserts that could not be
proved are looked at for these inputs, in all heads, and 1 is returned if one fails.
Needs no torch, unless the program selects: then random queries and keys choose. Not its
job: attention values.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patternc import driver
from patternc.check import lower
from patternc.cli.asserts import hold
from patternc.cli.files import write_whole
from patternc.cli.inputs import Call, Table, add_inputs, read_tables, tables_of
from patternc.cli.options import (
    Value,
    add_entry,
    add_program,
    head,
    length,
    offset,
    values_of,
)
from patternc.cli.report import UsageError
from patternc.data_checks import CallPairs, wrong_length
from patternc.ir.evaluate import Tables, dense_mask
from patternc.ir.nodes import Attention
from patternc.ir.selected import placed_params
from patternc.picture import mask_png, terminal_picture
from patternc.plan.expand import plan_mask
from patternc.source import Source
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


@dataclass(frozen=True, slots=True)
class View:
    """Which mask of a program is looked at: the arguments of `add_view`, checked.

    `k_len` None is the length of the attention's layout, or `DEFAULT_LENGTH`.
    """

    entry: str | None
    values: Mapping[str, Value]
    head: int
    q_len: int | None
    k_len: int | None
    q_offset: int | None
    batch: int
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, what to look at, --digest, --via and --out."""
    add_program(parser)
    add_view(parser)
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
        "--check",
        action="store_true",
        help="also look whether asserts that were not proved hold for these inputs",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="also write m.png or m.npy"
    )


def add_view(parser: argparse.ArgumentParser) -> None:
    """--entry, --set, --input, --batch, sizes and --head."""
    add_entry(parser)
    add_inputs(parser)
    parser.add_argument(
        "--q-len", type=length, metavar="N", help="number of queries (default: --k-len)"
    )
    parser.add_argument(
        "--k-len",
        type=length,
        metavar="N",
        help=f"number of keys (default: that of its layout, or {DEFAULT_LENGTH})",
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
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the random queries and keys that selections choose by (default: 0)",
    )


def view_of(args: argparse.Namespace) -> View:
    """The view that parsed arguments ask for. Raises `UsageError`."""
    return View(
        args.entry,
        values_of(args.set),
        args.head,
        args.q_len,
        args.k_len,
        args.q_offset,
        args.batch,
        args.seed,
    )


def run(args: argparse.Namespace) -> int:
    """Make the mask, then show, count or write it."""
    if args.out is not None and args.out.suffix not in (".png", ".npy"):
        raise UsageError(f"--out {args.out}: expected a name that ends in .png or .npy")
    source, given = read_source(args.file), read_tables(args.input)
    view = view_of(args)
    mask = mask_of(source, view, given, args.via)
    if args.out is not None:
        write_whole(args.out, _content(args.out.suffix, mask))
    if args.digest:
        print(json.dumps(asdict(digest(mask))))
    else:
        show(mask, args.head)
    return 0 if not args.check or asserts_hold(source, view, given) else 1


def asserts_hold(source: Source, view: View, given: Mapping[str, Table]) -> bool:
    """Whether no assert fails for these tables; says so on stderr.

    Raises `PatternError` for one that is refuted whatever the tables hold.
    """
    attention, decisions = driver.decide_source(source, view.entry, view.values)
    call = _call(attention, view)
    params, tables = _given(attention, given, call, view.seed)
    return hold(attention, decisions, call, params, tables)


def show(mask: Bools, wanted: int) -> None:
    """Print a picture of the mask [n_q, n_k] of a head, and its counts."""
    found = digest(mask)
    print(terminal_picture(mask))
    print(
        f"head {wanted}: {found.visible} of {mask.size} pairs visible,"
        f" density {found.density:.6f}, {found.empty_rows} empty rows"
    )
    tiles = ", ".join(f"{count} {kind}" for kind, count in asdict(found.tiles).items())
    print(f"tiles of {TILE} x {TILE}: {tiles}")


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


def mask_of(source: Source, view: View, given: Mapping[str, Table], via: str) -> Bools:
    """The mask [q_len, k_len] that is looked at; `via` as for --via.

    Raises `PatternError` for what is wrong with the program, `UsageError` for a head,
    a length or a table that does not fit it.
    """
    if via == "plan":
        kernel = driver.compile_source(source, view.entry, view.values)
        call = _call(kernel.attention, view)
        params, tables = _given(kernel.attention, given, call, view.seed)
        return plan_mask(
            kernel, view.head, call.n_q, call.n_k, call.q_offset, params, tables
        )
    attention = lower(parse(source), view.entry, view.values)
    call = _call(attention, view)
    params, tables = _given(attention, given, call, view.seed)
    return _reference_mask(attention, view.head, call, params, tables)


def _given(
    attention: Attention, given: Mapping[str, Table], call: Call, seed: int
) -> tuple[dict[str, int], Tables]:
    """The parameters and the tables of one batch element. Raises `UsageError`."""
    params = defaults(attention)
    tables: Tables = tables_of(attention, given, call)
    if attention.selections:
        from patternc.cli.selected import chosen_tables  # torch, which others need not

        params, tables = chosen_tables(attention, call, given, params, seed)
    pairs = CallPairs(call.n_q, call.n_k, call.q_offset, params, tables)
    wrong = wrong_length(attention, pairs)
    if wrong is not None:
        raise UsageError(wrong)
    return params, tables


def _call(attention: Attention, view: View) -> Call:
    """The sizes of a call, checked against the attention and against memory."""
    _require_head(view.head, attention)
    layout = attention.layout
    usual = DEFAULT_LENGTH if layout is None else layout.size
    n_k = usual if view.k_len is None else view.k_len
    n_q = n_k if view.q_len is None else view.q_len
    q_offset = n_k - n_q if view.q_offset is None else view.q_offset
    if n_q * n_k > MOST_PAIRS:
        raise UsageError(
            f"a mask of {n_q} x {n_k} pairs is too large to list;"
            f" at most {MOST_PAIRS} pairs"
        )
    if layout is not None and (n_k != layout.size or q_offset + n_q != layout.size):
        raise UsageError(
            f"the layout {layout.name} has {layout.size} tokens:"
            f" not {n_k} keys, with queries up to {q_offset + n_q}"
        )
    return Call(n_q, n_k, q_offset, view.batch)


def _require_head(wanted: int, attention: Attention) -> None:
    if wanted >= attention.heads:
        raise UsageError(
            f"--head {wanted}: {attention.name} has the heads"
            f" 0 to {attention.heads - 1}"
        )


def _reference_mask(
    attention: Attention,
    wanted: int,
    call: Call,
    params: Mapping[str, int],
    tables: Tables,
) -> Bools:
    """`dense_mask` in slices of rows: its integers take eight bytes a pair."""
    expr = attention.case_of(wanted).mask
    height = max(1, _PAIRS_AT_ONCE // call.n_k)
    mask = np.empty((call.n_q, call.n_k), dtype=np.bool_)
    for first in range(0, call.n_q, height):
        rows = min(height, call.n_q - first)
        start = call.q_offset + first
        mask[first : first + rows] = dense_mask(
            expr, wanted, rows, call.n_k, start, params, tables
        )
    return mask


def defaults(attention: Attention) -> dict[str, int]:
    """The run-time parameters' values: --set ones have become defaults by now."""
    placed = placed_params(attention)
    missing = [
        param.name
        for param in attention.params
        if param.default is None and param.name not in placed
    ]
    if missing:
        raise UsageError(f"{attention.name} needs --set {missing[0]}=VALUE")
    return {p.name: p.default for p in attention.params if p.default is not None}


def _content(suffix: str, mask: Bools) -> bytes:
    if suffix == ".png":
        return mask_png(mask)
    buffer = io.BytesIO()
    np.save(buffer, mask, allow_pickle=False)
    return buffer.getvalue()
