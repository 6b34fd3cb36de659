"""The text of a kernel.

In: a planned kernel, what it does beside masks, whether its tiles hold positions of
orders. Out: the function that runs on the device, and those that it calls. Not its job:
loops, ranges and weights (`loops`, `ranges`, `weigh`), the launcher (`launches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patternc.backends.triton.features import (
    AnyRead,
    Features,
    reads_of,
    reads_of_float,
)
from patternc.backends.triton.loops import forward_body, loop_lines
from patternc.backends.triton.ranges import (
    assign_slots,
    has_lists,
    hides_pairs,
    range_lines,
)
from patternc.backends.triton.shares import packed_holes, packs, share_lines
from patternc.backends.triton.stripe_loops import (
    bounds_lines,
    forward_stripe_body,
    stripe_loop_lines,
)
from patternc.backends.triton.stripes import ROWS, STRIPES, Striped
from patternc.backends.triton.tables import (
    batch_lines,
    numbers,
    pointers,
    read_functions,
)
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import (
    Weigher,
    epilogue_lines,
    factor_lines,
    prepare_lines,
    skip_lines,
)
from patternc.ir.derive import derive
from patternc.ir.floats import float_reads, float_subexpressions
from patternc.ir.nodes import (
    FloatBinary,
    FloatCall,
    FloatExpr,
    FloatFunction,
    FloatOp,
    Given,
    GivenValue,
    WeightKind,
)
from patternc.plan.kernel import Kernel

EXACT_TILES = 32
"""The query tiles that a program of the second launch looks after."""

_LISTS = ["list_tiles", "list_first", "list_partial", "list_full"]


def takes_lists(kernel: Kernel, features: Features) -> bool:
    """Whether the kernels of a module have lists of tiles among their arguments."""
    return has_lists(kernel) or features.is_ordered


def pointer_names(kernel: Kernel, features: Features) -> list[str]:
    """The pointer arguments after the output and the LSE."""
    return [
        *(_LISTS if takes_lists(kernel, features) else []),
        *(["tokens", "token_rows"] if features.is_ordered else []),
        *(STRIPES if features.has_stripes else []),
        *pointers(features.tables),
        *(ROWS if features.has_stripes else []),
        *(["v_rows"] if features.reads_own_value else []),
    ]


def number_names(features: Features) -> list[tuple[str, str]]:
    """The scalar arguments after the run-time parameters, and their types."""
    batch = [("list_batch", "tl.int32")] if features.lists_data else []
    if features.has_stripes:
        batch += [("stripe_batch", "tl.int32"), ("first_q_block", "tl.int32")]
    return [*batch, *numbers(features.tables)]


def kernel_text(
    kernel: Kernel, features: Features, ordered: bool, stripes: Striped | None = None
) -> str:
    """`forward_kernel`, or `ordered_kernel`, whose tiles hold positions.

    `stripes` are visited after the tiles of `kernel`.
    """
    hides = hides_pairs(kernel) or stripes is not None
    if ordered:
        covers = tuple(
            replace(cover, ranges=None) if cover.order else cover
            for cover in kernel.covers
        )
        kernel = replace(kernel, covers=covers)
    slots = assign_slots(kernel, features.lists_data)
    weigher = Weigher(kernel, features, ordered)
    params = [f"p_{param.name}" for param in kernel.attention.params]
    scalars = number_names(features)
    queries = fill("gather_queries" if ordered else "queries").splitlines()
    is_packing = packs(kernel, features)
    constants = ["PACKED"] if is_packing else []
    constants += ["EPILOGUE"] if features.has_epilogue else []
    if is_packing:
        queries = fill("packed_queries", {"queries": queries}).splitlines()
    prepare = [*batch_lines(features.tables), *prepare_lines(weigher)]
    ranges = range_lines(slots)
    loops = loop_lines(slots, weigher, forward_body(weigher))
    if stripes is not None:
        ranges += bounds_lines(kernel, stripes)
        loops += stripe_loop_lines(stripes, weigher, forward_stripe_body(weigher))
    text = fill(
        "forward",
        {
            "param_names": [f'"{x}",' for x in (*params, *(n for n, _ in scalars))],
            "alignment": alignment_lines(features),
            "list_params": [f"{x}," for x in pointer_names(kernel, features)],
            "params": [
                *(f"{name}: tl.int32," for name in params),
                *(f"{name}: {kind}," for name, kind in scalars),
            ],
            "marks": mark_lines(hides),
            "tokens": token_lines() if ordered else [],
            "skip": _skip(weigher),
            "exact_tiles": [f"EXACT_TILES: tl.constexpr = {EXACT_TILES}"],
            **_group_holes(ordered),
            "given": [f"{name}," for name in (*params, *(n for n, _ in scalars))],
            "passed": [f"{name}," for name in constants],
            "ranges": ranges,
            "shares": share_lines(slots, stripes.kinds if stripes else ()),
            "queries": queries,
            **packed_holes(is_packing),
            "factor": factor_lines(weigher),
            "prepare": prepare,
            "loops": loops,
            "epilogue": epilogue_lines(weigher),
            "constants": [f"{name}: tl.constexpr," for name in constants],
        },
    )
    if not ordered:
        return text
    text = text.replace("def forward_kernel(", "def ordered_kernel(")
    return text.replace("forward_tile(", "ordered_tile(")


def _skip(weigher: Weigher) -> list[str]:
    """Heads that are skipped end here; their tiles are never computed again."""
    lines = skip_lines(weigher)
    return lines and ["if not EXACT:", *(f"    {line}" for line in lines)]


def _group_holes(ordered: bool) -> dict[str, list[str]]:
    """Where an order says which rows the tiles hold that a program looks at."""
    if not ordered:
        return {"group_tokens": [], "looked_tokens": [], "row_tokens": []}
    *tokens, rows = token_lines("own_q", "own_k")
    looked = [rows.replace("rows", "looked")]
    return {"group_tokens": tokens, "looked_tokens": looked, "row_tokens": [rows]}


def token_lines(n_q: str = "n_q", n_k: str = "n_k") -> list[str]:
    """Before anything is loaded: the rows of a query tile that holds positions.

    A position beyond the tokens is a row of its own, which is none of them.
    """
    rows = f"rows = tl.load(token_at + rows, mask=rows < {n_q}, other=rows)"
    return [*order_lines(n_k), rows]


def order_lines(n_k: str = "n_k") -> list[str]:
    """Where the tokens of a head's order lie."""
    return fill("token_rows", {"count": [f"n_tokens = {n_k}"]}).splitlines()


def mark_lines(hides: bool) -> list[str]:
    """Whether a launch marks what is spoiled: only where a second one comes after it."""
    alone = "" if hides else ' and SEQUENCES != "none"'
    return [f"MARKS: tl.constexpr = not EXACT{alone}"]


def alignment_lines(features: Features) -> list[str]:
    """Inputs come with any alignment: one kernel serves all."""
    names = pointers(features.tables)
    if not names:
        return ["]"]
    inner = [f'    "{name}",' for name in names]
    return ["],", "do_not_specialize_on_alignment=[", *inner, "],"]


def device_functions(kernel: Kernel, features: Features) -> list[str]:
    """The functions that kernels call, by what they do."""
    reads: list[AnyRead] = []
    for cover in kernel.covers:
        reads += reads_of(cover.mask)
    for expr in features.floats:
        reads += reads_of_float(expr)
    kinds = {case.kind for case in features.unnormalised}
    called = _called(features)
    slopes = [derive(case.score, GivenValue(Given.SCORE)) for case in features.scores]
    slopes += [
        derive(case.score, read)
        for case in features.scores
        for read in float_reads(case.score)
    ]
    called |= _called_by(slopes)
    gathers = features.is_ordered or features.reads_own_value
    needs = {
        "gather": gathers,
        "stripe_rows": features.has_stripes,
        "weigh": features.is_ordered or features.has_stripes or bool(kinds),
        "relu2": WeightKind.RELU2 in kinds,
        "sigmoid": WeightKind.SIGMOID in kinds or FloatFunction.SIGMOID in called,
        "sink": bool(features.sinks),
        "floats": bool(called - {FloatFunction.SIGMOID, FloatFunction.SIGN}),
        "sign": FloatFunction.SIGN in called,
        "relu2_slope": WeightKind.RELU2 in kinds,
    }
    texts = [fill("visible"), fill("tiles"), fill("marks")]
    texts += [fill(name) for name, is_needed in needs.items() if is_needed]
    return [*texts, read_functions(reads)] if reads else texts


_DEFINED = {
    FloatFunction.TANH,
    FloatFunction.RELU,
    FloatFunction.SIGMOID,
    FloatFunction.SIGN,
}


def _called(features: Features) -> set[FloatFunction | FloatOp]:
    """What the expressions use of the functions that modules define themselves."""
    return _called_by(features.floats)


def _called_by(exprs: Sequence[FloatExpr]) -> set[FloatFunction | FloatOp]:
    found: set[FloatFunction | FloatOp] = set()
    for expr in exprs:
        for node in float_subexpressions(expr):
            match node:
                case FloatBinary(op=FloatOp.MIN | FloatOp.MAX as op):
                    found.add(op)
                case FloatCall(function=function) if function in _DEFINED:
                    found.add(function)
    return found
