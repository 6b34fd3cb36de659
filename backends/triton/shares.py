"""Key tiles of one query tile that several programs share, as Triton and Python text.

In: a planned kernel, its slots, and what it does beside masks. Out: the lines that cut
the steps of the loops into shares, the kernel that joins the sums of shares, and what
says on the host how many shares there are. Not its job: the loops (`loops`), launches
(`launches`).

A query tile is a program of its own, and a few queries are too few programs for a
device. So the steps, PARTIAL ones first, are cut into equal shares, as in
Flash-Decoding (Dao, Haziza, Massa, Sizov, 2023). Where the queries of all heads that
share keys and values fit into one query tile, they are its rows: keys and values are then
read once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from patternc.backends.triton.expr import PythonPrinter
from patternc.backends.triton.features import Features
from patternc.backends.triton.ranges import Slots, box_of, has_lists
from patternc.backends.triton.tables import batch_lines, numbers, pointers
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import Weigher, epilogue_lines, skip_lines
from patternc.ir.floats import discrete_parts
from patternc.ir.nodes import Axis, BoolExpr, IntExpr, Truth
from patternc.ir.text import print_heads
from patternc.ir.walk import axes_of
from patternc.plan.choose import FAMILY, SHARED_BYTES
from patternc.plan.kernel import Kernel, KeyRange, TileCover

_STRIDES = ("stride_vb", "stride_vh", "stride_vn", "stride_vd")

_HOST_NAMES = {Axis.QUERY_TILE: "qt", Axis.HEAD: "h", Axis.LENGTH: "n_k"}

_INDENT = 4


def share_lines(slots: Slots, stripes: Sequence[str] = ()) -> list[str]:
    """Before the loops: the steps from `first_...` to `last_...` of this program.

    Steps of FULL tiles count from 0, or in a kernel with lists on from the PARTIAL ones.
    The loops over `stripes`, by the names of what they go over, come last.
    """
    kinds = [
        kind
        for kind, columns in (("partial", slots.partial), ("full", slots.full))
        if columns
    ]
    if not kinds and not stripes:
        return []
    goes_on = has_lists(slots.kernel)
    start = "n_partial" if goes_on else "0"
    end = "n_partial + n_full" if goes_on else "n_full"
    bounds = {"partial": ("0", "n_partial"), "full": (start, end)}
    before = "n_partial" if "partial" in kinds and not goes_on else ""
    lines = [f"first_{kind}, last_{kind} = {', '.join(bounds[kind])}" for kind in kinds]
    for kind in stripes:
        lines.append(f"first_{kind}, last_{kind} = {kind}_lo, {kind}_lo + n_{kind}")
    steps = " + ".join(f"n_{kind}" for kind in (*kinds, *stripes))
    inner = [f"each = ({steps} + splits - 1) // splits", "first = share * each"]
    if stripes:
        inner[0] = "each = (n_steps + splits - 1) // splits"
        inner.insert(0, f"n_steps = {steps}")
    for kind in kinds:
        low, high = bounds[kind]
        shifted = f" - {before}" if kind == "full" and before else ""
        inner.append(f"first_{kind} = tl.maximum(first{shifted}, {low})")
        inner.append(f"last_{kind} = tl.minimum(first + each{shifted}, {high})")
    done = [f"n_{kind}" for kind in kinds]
    for kind in stripes:
        inner.append(f"from_{kind} = first_{kind}" + "".join(f" - {n}" for n in done))
        inner.append(f"first_{kind} = tl.maximum(from_{kind} + first, first_{kind})")
        inner.append(
            f"last_{kind} = tl.minimum(from_{kind} + first + each, last_{kind})"
        )
        done.append(f"n_{kind}")
    return [*lines, "if IS_SPLIT:", *(f"    {line}" for line in inner)]


def packs(kernel: Kernel, features: Features) -> bool:
    """Whether query heads that share keys and values can share a tile of few queries.

    They can if no text before the rows are whole tells one of them from another.
    """
    attention = kernel.attention
    size = attention.heads // attention.kv_heads
    apart = [case.heads for case in features.scores]
    apart += [case.heads for case in features.unnormalised]
    apart.append(features.skipped)
    parts: list[BoolExpr | IntExpr] = []
    for cover in kernel.covers:
        parts += masks_of(cover)
    for case in features.scores:
        parts += discrete_parts(case.score)
    return (
        size > 1
        and not features.is_ordered
        and all(_holds_groups(heads, size) for heads in apart)
        and all(len(masks) == 1 for masks in _masks_of_groups(kernel, size))
        and not any(Axis.HEAD in axes_of(part) for part in parts)
    )


def _holds_groups(heads: Sequence[int], size: int) -> bool:
    """Whether the query heads of a key/value head are all among `heads`, or none."""
    counts = Counter(head // size for head in heads)
    return all(count == size for count in counts.values())


def masks_of(cover: TileCover) -> tuple[BoolExpr, ...]:
    """What says which pairs are visible: the mask, and stripes in its place."""
    own = cover.stripes
    if own is None:
        return (cover.mask,)
    blocks = own.blocks
    return (
        cover.mask,
        own.diagonals,
        own.columns,
        own.within,
        *((blocks.mask, blocks.within) if blocks is not None else ()),
    )


def _masks_of_groups(kernel: Kernel, size: int) -> list[set[tuple[BoolExpr, ...]]]:
    """The different masks of the query heads of each key/value head."""
    found: dict[int, set[tuple[BoolExpr, ...]]] = {}
    for cover in kernel.covers:
        for head in cover.heads:
            found.setdefault(head // size, set()).add(masks_of(cover))
    return list(found.values())


def packed_holes(is_packing: bool) -> dict[str, list[str]]:
    """Lines for the holes `packed_...` of the forward kernel."""
    holes = {
        "packed_head": [
            "if PACKED:",
            "    # Rows are the queries of each head that shares the keys, head by head.",
            "    kv_heads = HEADS // GROUP_SIZE",
            "    h = tile // n_q_tiles % kv_heads * GROUP_SIZE",
            "    b = tile // n_q_tiles // kv_heads",
        ],
        "packed_rows": [
            "if PACKED:",
            "    rows = tl.arange(0, BLOCK_Q) % n_q",
            "    members = tl.arange(0, BLOCK_Q) // n_q",
        ],
        "packed_places": [
            "if PACKED:",
            "    at += members.to(tl.int64) * n_q * splits",
            "    inside = (members < GROUP_SIZE) & (rows + q_offset >= q0)",
            "    inside &= rows + q_offset < q0 + BLOCK_Q",
        ],
    }
    return {name: lines if is_packing else [] for name, lines in holes.items()}


def combine_text(kernel: Kernel, features: Features) -> str:
    """`combine_kernel`, which ends rows as `forward_kernel` does."""
    weigher = Weigher(kernel, features, False)
    own = features.reads_own_value
    names = [
        *([(name, "tl.int64") for name in _STRIDES] if own else []),
        *((f"p_{param.name}", "tl.int32") for param in kernel.attention.params),
        *numbers(features.tables),
    ]
    tables = pointers(features.tables)
    unaligned = ["],", "do_not_specialize_on_alignment=["]
    unaligned += [*(f'    "{name}",' for name in tables), "],"]
    return fill(
        "combine",
        {
            "unspecialised": [f'"{name}",' for name, _ in names],
            "alignment": unaligned if tables else ["]"],
            "pointers": [
                f"{name}," for name in [*tables, *(["v_rows"] if own else [])]
            ],
            "numbers": [f"{name}: {kind}," for name, kind in names],
            "constants": ["EPILOGUE: tl.constexpr,"] if features.has_epilogue else [],
            "kv_head": ["kv_head = h // GROUP_SIZE"] if own else [],
            "skip": skip_lines(weigher),
            "batch": batch_lines(features.tables),
            "epilogue": epilogue_lines(weigher),
        },
    )


def packed_lines(is_packing: bool) -> list[str]:
    """Before the number of shares is chosen: whether this call packs query heads."""
    if not is_packing:
        return ["is_packed = False"]
    return [
        'is_packed = form == "none" and n_q * (HEADS // KV_HEADS) <= BLOCK_Q',
        "is_packed = is_packed and fits_packed(q, v)",
        "if is_packed:",
        "    programs = n_q_tiles * KV_HEADS * batch",
    ]


def fits_packed_text() -> str:
    """`fits_packed`, for the family that the other launches are chosen for."""
    return fill("fits_packed", {"limit": [f"PACKED_BYTES = {SHARED_BYTES[FAMILY]}"]})


def combine_launch_lines(features: Features) -> list[str]:
    """Behind the launches of a kernel whose programs take shares."""
    own = features.reads_own_value
    return [
        "if shares[0] is not None:",
        "    combine_kernel[(batch * HEADS * n_q,)](",
        "        *shares,",
        "        output,",
        "        lse,",
        *(["        *pointers,"] if features.tables else []),
        *(["        v,"] if own else []),
        "        n_q,",
        "        n_k,",
        "        q_offset,",
        "        splits,",
        *(["        *v.stride(),"] if own else []),
        "        *values.values(),",
        *(["        *as_numbers(pointers),"] if features.tables else []),
        "        HEADS=HEADS,",
        "        GROUP_SIZE=HEADS // KV_HEADS,",
        "        VALUE_DIM=value_dim,",
        "        BLOCK_DV=padded(value_dim),",
        "        BLOCK_Q=1,",
        "        SHARES=MOST_SPLITS,",
        *(["        EPILOGUE=epilogue,"] if features.has_epilogue else []),
        "    )",
    ]


def shares_text(kernel: Kernel) -> str:
    """`splits_of` and what it calls."""
    printer = PythonPrinter(_HOST_NAMES, box_of(kernel), 'values["{}"]')
    lines: list[str] = []
    for cover in kernel.covers:
        lines += [f"# heads {print_heads(cover.heads)}"]
        if cover.ranges is None:
            lines.append("most = max(most, n_k_tiles)")
            continue
        lines += [f"h, steps = {min(cover.heads)}, 0"]
        for part in cover.ranges:
            lines += _step_lines(printer, part)
        lines.append("most = max(most, steps)")
    return fill("shares", {"groups": lines})


def _step_lines(printer: PythonPrinter, part: KeyRange) -> list[str]:
    """The tiles of one range join `steps`."""
    lines = [
        *printer.assign("lo", part.lo, _INDENT),
        *printer.assign("hi", part.hi, _INDENT),
        f"count = len(range(lo, min(hi, n_k_tiles), {part.step}))",
    ]
    if part.guard == Truth(True):
        return [*lines, "steps += count"]
    guard = printer.assign("is_live", part.guard, _INDENT)
    return [*lines, *guard, "steps += count if is_live else 0"]
