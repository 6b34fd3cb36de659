"""Chosen diagonals, columns and blocks, as Triton and Python text.

In: a planned kernel some of whose covers have stripes (`plan.stripes`). Out: the kernel
that is left without them, the functions that find and list stripes on the device. Not its
job: the loops of a query tile over its stripes (`stripe_loops`).

A query tile visits, in one softmax and no pair twice: the tiles that its diagonals need,
FULL where all their pairs are on chosen diagonals, then chosen columns, BLOCK_K of them
at a time, less the pairs on chosen diagonals. A tile of diagonals begins at any key, not
at a multiple of BLOCK_K, and as far ahead of the queries for every query tile: so each
head has one list. A column is a row of K and V that is loaded by its own address.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from patternc.backends.triton.expr import Printer, TorchPrinter
from patternc.backends.triton.features import Features, needs_profile, reads_of
from patternc.backends.triton.ranges import (
    box_of,
    heads_condition,
    is_listed,
    place,
)
from patternc.backends.triton.tables import (
    Loaded,
    batch_lines,
    load_lines,
    numbers,
    pointers,
)
from patternc.backends.triton.template import fill
from patternc.ir.nodes import EMPTY_PATTERN, Axis, BoolExpr, Truth
from patternc.ir.walk import axes_of, params_of
from patternc.plan.kernel import Blocks, Kernel, Stripes, TileCover
from patternc.plan.stripes import on_diagonal

STRIPES = [
    "stripe_words",
    "stripe_tiles",
    "tile_words",
    "stripe_held",
    "stripe_columns",
    "column_words",
    "stripe_bounds",
    "stripe_blocks",
    "block_ends",
]
"""The pointer arguments of a kernel that visits stripes."""

ROWS = ["key_rows", "value_rows"]
"""K and V again, where `k_source` and `v_source` are descriptors of tiles."""

KINDS = ("striped", "filled", "column", "edge", "block")
"""What its loops go over: PARTIAL and FULL tiles of diagonals, columns, and tiles of
PARTIAL and of FULL blocks."""


@dataclass(frozen=True, slots=True)
class Striped:
    """The covers that have stripes.

    All count columns under the same mask, `within`, and have `blocks` of the same size
    that count under the same mask.
    """

    covers: tuple[tuple[TileCover, Stripes], ...]
    within: BoolExpr
    blocks: Blocks | None

    @property
    def has_diagonals(self) -> bool:
        """Whether any head chooses diagonals."""
        return any(own.diagonals != EMPTY_PATTERN for _, own in self.covers)

    @property
    def has_columns(self) -> bool:
        """Whether any head chooses columns."""
        return any(own.columns != EMPTY_PATTERN for _, own in self.covers)

    @property
    def has_lines(self) -> bool:
        """Whether any head chooses diagonals or columns."""
        return self.has_diagonals or self.has_columns

    @property
    def has_both(self) -> bool:
        """Whether tiles of diagonals may hold pairs of columns."""
        return self.has_diagonals and self.has_columns

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those of `KINDS` that there are loops for."""
        diagonals = KINDS[:2] if self.has_diagonals else ()
        columns = KINDS[2:3] if self.has_columns else ()
        return diagonals + columns + (KINDS[3:] if self.blocks else ())


def striped(kernel: Kernel) -> Striped | None:
    """The covers whose stripes a kernel visits, or None.

    Where columns or blocks count under different masks the first cover's is taken, and
    the others keep their tiles.
    """
    found = Striped((), EMPTY_PATTERN, None)
    for cover in kernel.covers:
        own = cover.stripes
        if own is None or not is_listed(cover):
            continue
        joined = replace(found, covers=(*found.covers, (cover, own)))
        if own.columns != EMPTY_PATTERN:
            if found.has_columns and found.within != own.within:
                continue
            joined = replace(joined, within=own.within)
        if own.blocks is not None:
            alike = replace(own.blocks, mask=EMPTY_PATTERN)
            if found.blocks is not None and found.blocks != alike:
                continue
            joined = replace(joined, blocks=alike)
        found = joined
    return found if found.covers else None


def has_small_tiles(kernel: Kernel) -> bool:
    """Whether the bits of a tile's diagonals are few enough to be loaded a step ahead."""
    return max(kernel.schedule.block_q, kernel.schedule.block_k) <= 64


def without_stripes(
    kernel: Kernel, features: Features, own: Striped
) -> tuple[Kernel, Features]:
    """What other loops visit, and its features: a cover with stripes has no tiles."""
    ours = [cover for cover, _ in own.covers]
    covers = tuple(
        replace(cover, mask=EMPTY_PATTERN, ranges=()) if cover in ours else cover
        for cover in kernel.covers
    )
    lists = any(needs_profile(cover) for cover in covers)
    return replace(kernel, covers=covers), replace(
        features, lists_data=lists, has_stripes=True
    )


def stripe_functions(kernel: Kernel, features: Features, own: Striped) -> list[str]:
    """What finds stripes on the device and lists them, and its host's half."""
    texts = []
    names = [(f"p_{param.name}", "tl.int32") for param in kernel.attention.params]
    names += numbers(features.tables)
    tables = pointers(features.tables)
    holes = {
        "unspecialised": [f'"{name}",' for name, _ in names],
        "alignment": [
            "],",
            "do_not_specialize_on_alignment=[",
            *(f'    "{name}",' for name in tables),
            "],",
        ],
        "pointers": [f"{name}," for name in tables],
        "numbers": [f"{name}: {kind}," for name, kind in names],
        "batch": batch_lines(features.tables),
    }
    if own.has_diagonals:
        mark = _mark_lines(kernel, own, "diagonals", "places")
        texts.append(fill("mark_diagonals", {**holes, "mark": mark}))
        texts.append(fill("stripe_tiles", {"places": _place_lines()}))
        test = "stripe_bits" if has_small_tiles(kernel) else "stripe_chosen"
        texts += [fill("tile_words"), fill("stripe_words"), fill(test)]
    if own.has_columns:
        mark = _mark_lines(kernel, own, "columns", "k")
        texts.append(fill("mark_columns", {**holes, "mark": mark}))
    if own.blocks is not None:
        mark = _mark_lines(kernel, own, "blocks", "other")
        texts.append(fill("list_blocks", {**holes, "mark": mark}))
    return texts


def stripe_lists(kernel: Kernel, own: Striped, gradients: bool) -> list[str]:
    """The host's half: what launches the functions that find stripes."""
    lines = []
    given = "rows, n_q, n_k, q_offset"
    if own.has_lines:
        lines.append("rest = pointers, q0")
    if own.has_diagonals:
        lines += [
            f"found = chosen_diagonals({given}, values, numbers, *rest)",
            "words, tiles, tile_words, held, bounds[:, :, :4], marks = found",
        ]
    if own.has_columns:
        lines += [
            f"found = chosen_columns({given}, values, numbers, *rest)",
            "columns, column_words, bounds[:, :, 4:], about = found",
        ]
    if own.blocks is not None:
        lines += [
            "first_q_block = block_counts(n_q, n_k, q_offset)[0]",
            "given = (n_q, n_k, q_offset, values, pointers, device)",
            "blocks, ends = blocks_of(*given)",
        ]
    texts = [fill("stripes", {"stripes": lines})]
    if own.has_diagonals:
        within = ["return None"]
        if own.has_both:
            within = [
                "ahead = torch.arange(n_q + n_k - 1, device=device)",
                "ahead -= q_offset + n_q - 1",
                "found = counts_within(ahead, n_k, values, device)",
                "return found.to(torch.int8).contiguous()",
            ]
        texts.append(fill("diagonals", {"within": within}))
    if own.has_columns:
        texts.append(fill("columns", {"within": _within_lines(kernel, own.within)}))
    if own.blocks is not None:
        within = _within_lines(kernel, own.blocks.within)
        text = fill("blocks", {"within": within})
        sizes = f"{own.blocks.block_q}, {own.blocks.block_k}"
        texts.append(text.replace("BLOCK_SIZES", sizes))
    if own.has_diagonals and gradients:
        texts.append(fill("key_stripes"))
    return texts


def _place_lines() -> list[str]:
    lines = []
    blocks = ["block", "block + 1", "block + 2", "block + 3"]
    for at, block in enumerate(blocks):
        lines.append(f"live_{at} = look(words, {block}, rows, lane, COUNT)")
        lines.append(f"full_{at} = look(fulls, {block}, rows, lane, COUNT)")
    for at, block in enumerate(blocks):
        first = f"({block}) * BLOCK_K" if at else "block * BLOCK_K"
        arguments = ["tiles", "n_tiles", "covered", "n_partial", "n_full", first]
        arguments += ["least", f"live_{at}", f"full_{at}", "lane"]
        arguments += ["COUNT", "WIDTH", "BLOCK_K"]
        lines += [
            "covered, n_partial, n_full = place_tile(",
            *(f"    {item}," for item in arguments),
            ")",
        ]
    return lines


def _mark_lines(kernel: Kernel, own: Striped, part: str, like: str) -> list[str]:
    """`keep`: which diagonals `d`, columns `k` or blocks each head chooses.

    Its shape is that of `like`.
    """
    query, indent = ("q", 8) if part == "blocks" else ("d", 4)
    names = {Axis.QUERY: query, Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "n_k"}
    printer = Printer(names, box_of(kernel))
    heads = {head for cover, _ in own.covers for head in cover.heads}
    is_alone = len(own.covers) == 1 and len(heads) == kernel.attention.heads
    lines = [] if is_alone else [f"keep = {like} != {like}"]
    for cover, stripes in own.covers:
        mask = _part_of(stripes, part)
        inner = indent if is_alone else indent + 4
        if mask == EMPTY_PATTERN:
            body = [f"keep = {like} != {like}"]
        else:
            loaded = Loaded()
            body = load_lines(reads_of(mask), printer, loaded, inner)
            reader = replace(printer, reads=loaded.ints)
            body += [*reader.assign("keep", mask, inner), f"keep &= {like} == {like}"]
        body = [f"# {place(cover.span)}", *body]
        if not is_alone:
            condition = heads_condition(cover.heads)
            lines += printer.assign("is_own", condition, indent)
            body = ["if is_own:", *("    " + line for line in body)]
        lines += body
    return lines


def _part_of(stripes: Stripes, part: str) -> BoolExpr:
    if part == "diagonals":
        return on_diagonal(stripes.diagonals)
    if part == "columns":
        return stripes.columns
    return EMPTY_PATTERN if stripes.blocks is None else stripes.blocks.mask


def _within_lines(kernel: Kernel, within: BoolExpr) -> list[str]:
    """`keep`, [1 or HEADS, diagonals]: where a column or a block counts."""
    mask = on_diagonal(within)
    names = {Axis.QUERY: "d", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}
    lines = ["d = -ahead[None]"]
    if Axis.HEAD in axes_of(mask) or isinstance(mask, Truth):
        lines.append("h = torch.arange(HEADS, device=device)[:, None]")
    if Axis.LENGTH in axes_of(mask):
        lines.append("length = torch.full((), n_k, device=device)")
    lines += [
        f'p_{name} = torch.full((), values["{name}"], device=device)'
        for name in sorted(params_of(mask))
    ]
    printer = TorchPrinter(names, box_of(kernel))
    return [*lines, *printer.assign("keep", mask, 4), "keep = keep & (d == d)"]
