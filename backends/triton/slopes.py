"""The gradients of weights, scores and the elements that scores read, as Triton text.

In: what a program does with its logits. Out: the lines that turn the logits `s` of a
tile into weights `p` and gradients `ds`, and add up what follows from them. Not its
job: which tiles (`ranges`), the rest of the kernels (`backward`).

An element that does not depend on the key gets its gradient from whole rows, in the
query gradient kernel; one that depends on the key alone from whole columns, in the key
gradient kernel. Each kernel stores a number for each row (or key) and each element that
a head reads; the host adds them up where an element is read again.
"""

from __future__ import annotations

from functools import partial

from patternc.backends.triton.features import Features, reads_axis
from patternc.backends.triton.floats import number_text
from patternc.backends.triton.pairs import all_pair_reads, has_pairs, store_lines
from patternc.backends.triton.ranges import hides_pairs, place
from patternc.backends.triton.weigh import (
    Weigher,
    dispatched,
    exact_word,
    value_lines,
)
from patternc.ir.derive import ONE, ZERO, derive
from patternc.ir.floats import float_reads
from patternc.ir.nodes import (
    Axis,
    FloatExpr,
    FloatRead,
    Given,
    GivenValue,
    ScoreCase,
    WeightCase,
    WeightKind,
)
from patternc.plan.kernel import TileKind

_SCORE = GivenValue(Given.SCORE)
_INF = 'float("inf")'


def row_reads(case: ScoreCase) -> list[FloatRead]:
    """The elements that a score reads for whole rows."""
    reads = float_reads(case.score)
    return [read for read in reads if not reads_axis(read, Axis.KEY)]


def column_reads(case: ScoreCase) -> list[FloatRead]:
    """Those that it reads for whole columns."""
    reads = [read for read in float_reads(case.score) if reads_axis(read, Axis.KEY)]
    return [read for read in reads if not reads_axis(read, Axis.QUERY)]


def row_slots(features: Features) -> int:
    """The most elements that a head reads for whole rows."""
    return max((len(row_reads(case)) for case in features.scores), default=0)


def column_slots(features: Features) -> int:
    """The most elements that a head reads for whole columns."""
    return max((len(column_reads(case)) for case in features.scores), default=0)


def _slots(weigher: Weigher) -> int:
    is_reverse = weigher.along is Axis.QUERY
    return (column_slots if is_reverse else row_slots)(weigher.features)


def backward_scale_lines(weigher: Weigher) -> list[str]:
    """After the product of a tile: scores and weights read logits in natural units."""
    keep = ["raw = s"] if weigher.features.scores else []
    return ["s *= scale", *keep] if weigher.features.natural else []


def use_lines(weigher: Weigher, kind: TileKind, load_values: list[str]) -> list[str]:
    """After masks: the weights of a tile, their gradients, and what they add up to."""
    is_reverse, exact = weigher.along is Axis.QUERY, exact_word(kind)
    product = "v_tile, o_tile.T" if is_reverse else "o_tile, v_tile.T"
    lines = [*load_values, f"dp = tl.dot({product}, input_precision=PRECISION)"]
    # A row that is none: its logits are NaN at a key that is.
    none = f"s = tl.where(shift == {_INF}, -{_INF}, s)"
    if (
        not is_reverse
        and has_pairs(weigher.features)
        and not hides_pairs(weigher.kernel)
    ):
        lines.append(none)  # there is no second launch
    elif is_reverse or has_pairs(weigher.features):
        lines += ["if EXACT:", f"    {none}"]
    lines += _weight_lines(weigher, kind)
    if is_reverse:
        lines.append(f"dv = add_values(dv, s, p, o_tile, {exact}, PRECISION)")
    # Not a product with 0: what stands at a hidden pair may be infinite or NaN.
    hide = "ds = tl.where(p == 0.0, 0.0, ds)"
    if kind is TileKind.PARTIAL or weigher.features.natural:
        lines.append(hide)
    else:  # hidden are a row that is none, and what lies beyond a sequence
        lines += ["if EXACT:", f"    {hide}"]
    indent = weigher.indent + 4
    for at, case in enumerate(weigher.features.scores):
        body = partial(_score_lines, weigher, case)
        if not body(indent):  # `s + something`, of which nothing is wanted here
            continue
        lines += dispatched(weigher, f"in_score_{at}", case, body, indent)
    name, other = ("dk", "q_tile") if is_reverse else ("dq", "k_tile")
    return [*lines, f"{name} = add_finite({name}, ds, {other}, {exact}, PRECISION)"]


def _weight_lines(weigher: Weigher, kind: TileKind) -> list[str]:
    """Weights, and the gradients of what they are made from."""
    cases = weigher.features.unnormalised
    softmax = ["p = tl.exp2(s * factor - shift)"]
    if kind is TileKind.PARTIAL:
        softmax.append('p = tl.where(s == float("-inf"), 0.0, p)')
    softmax.append("ds = p * (dp - delta)")
    # What is loaded for a tile is used outside of branches: Triton's pipeliner fails
    # where it is not. So softmax weights are there for all heads, and then replaced.
    lines = list(softmax)
    for at, case in enumerate(cases):
        body = [f"# {place(case.span)}", *_unnormalised_lines(case)]
        if weigher.covers_all(case.heads):
            return body
        lines += [f"if in_weights_{at}:", *("    " + line for line in body)]
    return lines


def _unnormalised_lines(case: WeightCase) -> list[str]:
    argument = number_text(case.argument)
    if case.kind is WeightKind.RELU2:
        return [
            f"p = squared_relu(s, {argument})",
            f"ds = dp * squared_relu_slope(s, {argument})",
        ]
    return [f"p = sigmoid(s + {argument})", "ds = dp * p * (1.0 - p)"]


def _score_lines(weigher: Weigher, case: ScoreCase, indent: int) -> list[str]:
    """The gradients of the elements that a score reads, then that of its logit."""
    is_reverse = weigher.along is Axis.QUERY
    lines: list[str] = []
    for at, read in enumerate((column_reads if is_reverse else row_reads)(case)):
        slope = derive(case.score, read)
        if slope == ZERO:
            continue
        total = "tl.sum({}, 1)"
        lines += _times(weigher, slope, f"of_read_{at}", total, indent + 4)
    if lines:
        lines = ["if READ_GRADIENTS:", *("    " + line for line in lines)]
    if not is_reverse:
        lines += _pair_lines(weigher, case, indent)
    slope = derive(case.score, _SCORE)
    if slope == ZERO:
        return [*lines, "ds = tl.zeros_like(ds)"]
    return [*lines, *_times(weigher, slope, "ds", "", indent)]


def _pair_lines(weigher: Weigher, case: ScoreCase, indent: int) -> list[str]:
    """What a tile adds for elements that the score reads at pairs."""
    every = all_pair_reads(weigher.kernel)
    lines: list[str] = []
    for at, own in enumerate(every):
        slope = derive(case.score, own.read)
        if own.case is not case or slope == ZERO:
            continue
        product = _times(weigher, slope, "pairs", "", indent + 4)
        name = "pairs" if product else "ds"
        lines += [*product, *store_lines(own, at, name, indent + 4)]
    return ["if PAIR_GRADIENTS:", *("    " + line for line in lines)] if lines else []


def _times(
    weigher: Weigher, slope: FloatExpr, target: str, total: str, indent: int
) -> list[str]:
    """`ds` times a derivative, as `target`, or its sum added to `target`."""
    lines: list[str] = []
    product = "ds"
    if slope != ONE:
        lines = value_lines(weigher, "slope", slope, {Given.SCORE: "raw"}, "", indent)
        product = "tl.where(p == 0.0, 0.0, ds * slope)"
    if total:
        return [*lines, f"{target} += {total.format(product)}"]
    return [*lines, f"{target} = {product}"] if slope != ONE else []


def zero_reads_lines(weigher: Weigher) -> list[str]:
    """Before the loops: nothing has been added up."""
    block = "BLOCK_K" if weigher.along is Axis.QUERY else "BLOCK_Q"
    return [
        f"of_read_{at} = tl.zeros([{block}], tl.float32)"
        for at in range(_slots(weigher))
    ]


def store_reads_lines(weigher: Weigher) -> list[str]:
    """After the loops: one number for each row or key, [slots, B, H, rows or keys]."""
    slots = range(_slots(weigher))
    if not slots:
        return []
    is_reverse = weigher.along is Axis.QUERY
    lines = ["head_at = (b * HEADS + h).to(tl.int64)"]
    rows, count = ("k_rows", "n_k") if is_reverse else ("rows", "n_q")
    size = "tl.num_programs(0)"
    tiles = "n_k_tiles" if is_reverse else "n_q_tiles"
    members = " * MEMBERS" if is_reverse else ""
    heads = f"({size} // {tiles}{members})"
    if not is_reverse and has_pairs(weigher.features):  # these are not all programs
        heads = "(batches * HEADS)"
    lines += [
        f"heads_in_all = {heads}.to(tl.int64)",
        f"is_own = ({rows} >= 0) & ({rows} < {count})",
    ]
    for at in slots:
        lines += [
            f"read_at = ({at} * heads_in_all + head_at) * {count} + {rows}",
            f"tl.store(read_gradients + read_at, of_read_{at}, mask=is_own)",
        ]
    return ["if READ_GRADIENTS:", *("    " + line for line in lines)]
