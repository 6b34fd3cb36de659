"""The text of the kernels of the backward pass.

In: a planned kernel, its reverse (`plan.reverse`) and what it does beside masks. Out:
`delta_kernel`, `query_gradient_kernel` and `key_gradient_kernel`, and the ordered ones.
Not its job: their launchers (`gradients`), weights and scores in a tile (`slopes`).

The query gradient goes over the key tiles of `forward`, the key gradient over the query
tiles of the reverse relation. Both compute the weights again from the LSE, as T. Dao,
"FlashAttention-2" (2023), does. No sum is shared between programs: no atomics, and the
same bits in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patternc.backends.triton.features import Features
from patternc.backends.triton.kernels import (
    mark_lines,
    number_names,
    order_lines,
    token_lines,
)
from patternc.backends.triton.loops import Body, loop_lines
from patternc.backends.triton.pairs import (
    NUMBERS,
    PairRead,
    all_pair_reads,
    place_lines,
    sum_pointers,
    sum_templates,
)
from patternc.backends.triton.ranges import (
    assign_slots,
    has_lists,
    hides_pairs,
    range_lines,
)
from patternc.backends.triton.slopes import (
    backward_scale_lines,
    column_slots,
    row_slots,
    store_reads_lines,
    use_lines,
    zero_reads_lines,
)
from patternc.backends.triton.stripe_gradients import (
    Loads,
    column_gradient_text,
    key_stripes,
    query_stripes,
)
from patternc.backends.triton.stripes import ROWS, STRIPES, Striped
from patternc.backends.triton.tables import batch_lines, pointers
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import Weigher, prepare_lines
from patternc.ir.nodes import Axis
from patternc.plan.kernel import Kernel

LISTS = ["list_tiles", "list_first", "list_partial", "list_full"]
_STRIDES = [f"stride_{tensor}{axis}" for tensor in "qkvo" for axis in "bhnd"]
_SIZES = ["n_q", "n_k", "q_offset", "first_q_tile", "n_q_tiles"]


def backward_texts(
    kernel: Kernel,
    reversed_: Kernel,
    features: Features,
    stripes: Striped | None = None,
) -> list[str]:
    """The functions of the backward pass that run on the device.

    `stripes` are visited beside the tiles of `kernel`.
    """
    texts = [fill("first_from"), fill("finite"), fill("delta")]
    texts += [fill(name) for name in sum_templates(all_pair_reads(kernel))]
    for ordered in (False, True) if features.is_ordered else (False,):
        texts.append(query_gradient_text(kernel, features, ordered, stripes))
        texts.append(key_gradient_text(reversed_, features, ordered, stripes))
    if stripes is not None and stripes.has_columns:
        arguments = _arguments(reversed_, features, False, has_lists(reversed_))
        factor = _factor_lines(features)
        given = (reversed_, features, stripes, arguments, factor, _loads())
        texts.append(column_gradient_text(*given))
    return texts


def query_gradient_text(
    kernel: Kernel, features: Features, ordered: bool, stripes: Striped | None = None
) -> str:
    """`query_gradient_kernel`, or the one whose tiles hold positions of an order."""
    marks = mark_lines(hides_pairs(kernel) or stripes is not None)
    kernel = _of_positions(kernel) if ordered else kernel
    slots = assign_slots(kernel, features.lists_data)
    weigher = Weigher(kernel, features, ordered)
    prepare = [*batch_lines(features.tables), *prepare_lines(weigher)]
    rows = [*_key_rows("n_k"), "k = k_rows[None, :]"] if ordered else []
    keys = [*rows, *_load("k", ordered)]
    body = Body(
        "loop",
        keys,
        backward_scale_lines(weigher),
        lambda kind: use_lines(weigher, kind, _load("v", ordered)),
    )
    ranges, loops = range_lines(slots), loop_lines(slots, weigher, body)
    if stripes is not None:
        before, more = query_stripes(stripes, weigher, _loads())
        ranges, loops = [*ranges, *before], [*loops, *more]
    reads = all_pair_reads(kernel)
    given = (kernel, features, bool(row_slots(features)), has_lists(kernel))
    text = fill(
        "query_gradient",
        {
            **_arguments(*given, reads),
            "place": place_lines(reads),
            "factor": _factor_lines(features),
            "sequence": _sequence_lines("n_q"),
            "marks": marks,
            "tokens": token_lines() if ordered else [],
            "ranges": ranges,
            "queries": [
                "q = rows[:, None]" if ordered else _queries("[:, None]"),
                *_load("q", ordered),
                *_load("o", ordered),
            ],
            "rows": _row_numbers(ordered),
            "prepare": [*prepare, *zero_reads_lines(weigher)],
            "loops": loops,
            "reads": store_reads_lines(weigher),
        },
    )
    return _renamed(text, ordered)


def key_gradient_text(
    reversed_: Kernel, features: Features, ordered: bool, stripes: Striped | None = None
) -> str:
    """`key_gradient_kernel`, or the one whose tiles hold positions of an order."""
    kernel = _of_positions(reversed_) if ordered else reversed_
    slots = assign_slots(kernel, features.lists_data, reverse=True)
    weigher = Weigher(kernel, features, ordered, Axis.QUERY)
    rows = _query_rows() if ordered else _tile_rows()
    body = Body(
        "reverse_loop",
        [*rows, *_load("q", ordered), *_load("o", ordered)],
        backward_scale_lines(weigher),
        lambda kind: use_lines(weigher, kind, []),
        _row_numbers(ordered),
    )
    prepare = [*prepare_lines(weigher), *zero_reads_lines(weigher)]
    ranges, loops = range_lines(slots), loop_lines(slots, weigher, body)
    if stripes is not None:
        before, more = key_stripes(stripes, weigher, _loads())
        ranges, loops = [*ranges, *before], [*loops, *more]
    own = ["k_rows = k0 + tl.arange(0, BLOCK_K)"]
    if ordered:
        own = [*order_lines(), *_key_rows("k_rows")]
    text = fill(
        "key_gradient",
        {
            **_arguments(
                kernel, features, bool(column_slots(features)), has_lists(kernel)
            ),
            "factor": _factor_lines(features),
            "sequence": _sequence_lines("n_k"),
            "marks": mark_lines(hides_pairs(reversed_) or stripes is not None),
            "key_rows": own,
            "keys": ["k = k_rows[:, None]", *_load("k", ordered), *_load("v", ordered)],
            "batch": batch_lines(features.tables),
            "ranges": ranges,
            "prepare": prepare,
            "loops": loops,
            "reads": store_reads_lines(weigher),
        },
    )
    return _renamed(text, ordered)


def _of_positions(kernel: Kernel) -> Kernel:
    covers = tuple(
        replace(cover, ranges=None) if cover.order else cover for cover in kernel.covers
    )
    return replace(kernel, covers=covers)


def _renamed(text: str, ordered: bool) -> str:
    if not ordered:
        return text
    for name in ("query_gradient_kernel", "key_gradient_kernel"):
        text = text.replace(f"def {name}(", f"def ordered_{name}(")
    return text


def _arguments(
    kernel: Kernel,
    features: Features,
    has_reads: bool,
    lists: bool,
    reads: Sequence[PairRead] = (),
) -> dict[str, list[str]]:
    """The arguments after the gradients, by the holes of the templates."""
    scalars = [(f"p_{item.name}", "tl.int32") for item in kernel.attention.params]
    scalars += number_names(features)
    scalars += [(name, "tl.int32") for name in NUMBERS if reads]
    names = [*_STRIDES, *_SIZES, "scale", *(name for name, _ in scalars)]
    tables = pointers(features.tables)
    return {
        "unspecialised": [f'"{name}",' for name in names],
        "alignment": [
            "],",
            "do_not_specialize_on_alignment=[",
            *(f'    "{name}",' for name in tables),
            "],",
        ]
        if tables
        else ["]"],
        "pointers": [
            *(["read_gradients,"] if has_reads else []),
            *(f"{name}," for name in sum_pointers(reads)),
            *(f"{name}," for name in LISTS if lists or features.is_ordered),
            *(["tokens,", "token_rows,"] if features.is_ordered else []),
            *(f"{name}," for name in STRIPES if features.has_stripes),
            *(f"{name}," for name in tables),
            *(f"{name}," for name in ROWS if features.has_stripes),
        ],
        "numbers": [
            *(f"{name}: tl.int64," for name in _STRIDES),
            *(f"{name}: tl.int32," for name in _SIZES),
            "scale: tl.float32,",
            *(f"{name}: {kind}," for name, kind in scalars),
        ],
        "constants": [
            *(["READ_GRADIENTS: tl.constexpr,"] if has_reads else []),
            *(["PAIR_GRADIENTS: tl.constexpr,"] if reads else []),
        ],
    }


def _factor_lines(features: Features) -> list[str]:
    """What turns logits into exponents of 2: with scores they are scaled before."""
    if features.natural:
        return ["factor = 1.4426950408889634"]
    return ["factor = scale * 1.4426950408889634"]


def _sequence_lines(count: str) -> list[str]:
    """Which rows are the program's sequence; `count` of them are stored."""
    text = fill("sequence").replace("COUNT", count)
    return text.replace("n_stored = n_q", f"n_stored = {count}").splitlines()


def _queries(spread: str) -> str:
    return f"q = (q0 + tl.arange(0, BLOCK_Q)){spread}"


def _tile_rows() -> list[str]:
    return ["rows = q0 - q_offset + tl.arange(0, BLOCK_Q)", _queries("[None, :]")]


def _row_numbers(ordered: bool) -> list[str]:
    """What `delta_kernel` stored for each row of a query tile."""
    if ordered:
        return [
            "n_padded = n_q_tiles * BLOCK_Q",
            'if SEQUENCES == "packed":',
            "    n_padded = (n_stored + BLOCK_Q - 1) // BLOCK_Q * BLOCK_Q",
            "first_at = (element * HEADS + h).to(tl.int64) * n_padded + first_row",
            'inf = float("inf")',
            "row_shift = tl.load(shift_source + first_at + rows, rows < n_q, inf)",
            "row_delta = tl.load(delta_source + first_at + rows, rows < n_q, 0.0)",
        ]
    return fill("row_numbers").splitlines()


def _query_rows() -> list[str]:
    return [
        "positions = q0 + tl.arange(0, BLOCK_Q)",
        "rows = tl.load(token_at + positions, mask=positions < n_q, other=n_q)",
        "q = rows[None, :]",
    ]


def _key_rows(beyond: str) -> list[str]:
    """The keys at the positions of a tile; `beyond` the last one there is none."""
    return [
        "k_rows = k0 + tl.arange(0, BLOCK_K)",
        f"k_rows = tl.load(token_at + k_rows, mask=k_rows < n_k, other={beyond})",
    ]


def _loads() -> Loads:
    """How stripes load their tiles, and rows of keys."""
    loads = {tensor: _load(tensor, False) for tensor in "qkvo"}
    return loads | {f"{tensor}_rows": _load(tensor, True) for tensor in "kv"}


def _load(tensor: str, ordered: bool) -> list[str]:
    """The call that loads the tile of `q`, `k`, `v` or `o`, the output's gradient."""
    of_queries = tensor in "qo"
    head, count = ("h", "n_q") if of_queries else ("kv_head", "n_k")
    if ordered:
        place, function, block = ("rows" if of_queries else "k_rows"), "gather_rows", []
    else:
        place, function = ("q0 - q_offset" if of_queries else "k0"), "load_tile"
        block = ["BLOCK_Q" if of_queries else "BLOCK_K"]
    place, count = f"first_row + {place}", f"first_row + {count}"
    strides = [f"stride_{tensor}{axis}" for axis in "bhnd"]
    arguments = [f"{tensor}_source", "element", head, place, count, *strides, *block]
    dims = ("HEAD_DIM", "BLOCK_D") if tensor in "qk" else ("VALUE_DIM", "BLOCK_DV")
    inner = [f"    {item}," for item in (*arguments, *dims, "ACCESS")]
    return [f"{tensor}_tile = {function}(", *inner, ")"]
