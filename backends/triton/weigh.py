"""Scores, weights, sinks, outputs and skipped heads, as Triton text.

In: what a program asks of the kernel beside masks. Out: lines for the holes of the
kernel's templates; none for a program that asks nothing. Not its job: floating
expressions (`floats`), masks (`loops`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from patternc.backends.triton.expr import COLUMNS, Printer
from patternc.backends.triton.features import (
    AnyRead,
    Features,
    before_loops,
    reads_of,
    reads_of_float,
)
from patternc.backends.triton.floats import (
    TRITON,
    FloatPrinter,
    folded_float,
    number_text,
)
from patternc.backends.triton.ranges import (
    MASK_NAMES,
    heads_condition,
    place,
    printer_of,
)
from patternc.backends.triton.tables import Loaded, load_lines
from patternc.backends.triton.template import fill
from patternc.ir.floats import discrete_parts, float_subexpressions
from patternc.ir.nodes import (
    Axis,
    FloatExpr,
    Given,
    GivenValue,
    OutputCase,
    ScoreCase,
    SinkCase,
    WeightCase,
    WeightKind,
)
from patternc.ir.walk import axes_of
from patternc.plan.kernel import Kernel, TileKind

_WIDTHS = (40, 26, 14)
"""How long a subexpression may be before it gets a name: the first that fits is used."""

_AT_TOP = 4  # the indent of lines that stand in the kernel itself


@dataclass(frozen=True, slots=True)
class Weigher:
    """What a kernel does with its logits, and the elements that it has loaded.

    `along` is the axis that its loops over tiles go along.
    """

    kernel: Kernel
    features: Features
    ordered: bool
    along: Axis = Axis.KEY
    loaded: Loaded = field(default_factory=Loaded)

    @property
    def indent(self) -> int:
        """The indent of the lines before the loops: in reverse they are in one."""
        return 8 if self.along is Axis.QUERY else 4

    @property
    def tile(self) -> str:
        """The shape of a tile of pairs: in reverse it lies on its side."""
        return (
            "[BLOCK_K, BLOCK_Q]" if self.along is Axis.QUERY else "[BLOCK_Q, BLOCK_K]"
        )

    @property
    def printer(self) -> Printer:
        """For integers and truth values of a pair or a row."""
        return printer_of(self.kernel, MASK_NAMES)

    def covers_all(self, heads: Sequence[int]) -> bool:
        """Whether no condition is needed: every head that is not skipped is one."""
        every = set(range(self.kernel.attention.heads)) - set(self.features.skipped)
        return every <= set(heads)


Case = ScoreCase | WeightCase | SinkCase | OutputCase


def skip_lines(weigher: Weigher) -> list[str]:
    """Before anything is loaded: heads that are skipped end."""
    if not weigher.features.skipped:
        return []
    condition = heads_condition(weigher.features.skipped)
    lines = weigher.printer.assign("in_skipped", condition, _AT_TOP)
    return [*lines, *fill("skip").splitlines()]


def prepare_lines(weigher: Weigher) -> list[str]:
    """Before the loops: conditions on the head, and what is read once for each row."""
    lines: list[str] = []
    for at, score in enumerate(weigher.features.scores):
        lines += _condition(weigher, f"in_score_{at}", score)
    for at, weights in enumerate(weigher.features.unnormalised):
        lines += _condition(weigher, f"in_weights_{at}", weights)
    reads: list[AnyRead] = [
        read for cover in weigher.kernel.covers for read in reads_of(cover.mask)
    ]
    for case in weigher.features.scores:
        reads += reads_of_float(case.score)
    early = before_loops(reads, weigher.along)
    loads = load_lines(early, weigher.printer, weigher.loaded, weigher.indent)
    return [*lines, *loads]


def _condition(weigher: Weigher, name: str, case: Case) -> list[str]:
    if weigher.covers_all(case.heads):
        return []
    return weigher.printer.assign(name, heads_condition(case.heads), weigher.indent)


def scale_lines(weigher: Weigher) -> list[str]:
    """After the product of a tile."""
    if weigher.features.natural:
        return ["s *= scale"]
    return ["if not POSITIVE_SCALE:", "    s *= scale_log2"]


def factor_lines(weigher: Weigher) -> list[str]:
    """Before the loops: what turns logits into exponents of 2."""
    if not weigher.features.natural:
        return fill("factor").splitlines()
    return [
        "# Scores and weights read logits in natural units.",
        "scale = scale_log2 * 0.6931471805599453",
        "factor = 1.4426950408889634",
    ]


def scores_read_keys(weigher: Weigher) -> bool:
    """Whether a score needs the keys of a tile."""
    return any(_reads_keys(case.score) for case in weigher.features.scores)


def _reads_keys(expr: FloatExpr) -> bool:
    return any(Axis.KEY in axes_of(part) for part in discrete_parts(expr))


def score_lines(weigher: Weigher, indent: int) -> list[str]:
    """In the loops: what stands in the place of the logits."""
    lines: list[str] = []
    for at, case in enumerate(weigher.features.scores):
        lines += dispatched(
            weigher,
            f"in_score_{at}",
            case,
            partial(
                value_lines,
                weigher,
                "s",
                case.score,
                {Given.SCORE: "s"},
                weigher.tile,
            ),
            indent,
        )
    return lines


def exact_word(kind: TileKind) -> str:
    """Whether a product with a tile's rows keeps what is hidden out, in the kernel's words.

    A FULL tile hides nothing but what lies beyond a sequence: rows beyond a whole
    tensor are 0 where they are loaded. A plain product there is SDPA's, and code that
    is compiled in half of the time.
    """
    return "EXACT" if kind is TileKind.PARTIAL else 'EXACT and SEQUENCES != "none"'


def attend_lines(weigher: Weigher, kind: TileKind = TileKind.PARTIAL) -> list[str]:
    """In the loops: the weights of a tile, and what they add to the rows."""
    cases, exact = weigher.features.unnormalised, exact_word(kind)
    if not cases and not weigher.ordered:
        return fill("attend", {"exact": [f"{exact},"]}).splitlines()
    weigh = ["top, total, acc, p = weigh(top, total, acc, s, factor)"]
    lines: list[str] = []
    for at, case in enumerate(cases):
        lines += _weight_lines(weigher, case, f"in_weights_{at}", bool(lines))
    if not lines:
        lines = weigh
    elif not all_unnormalised(weigher):
        lines += ["else:", *("    " + line for line in weigh)]
    values = "gather_values" if weigher.ordered else "values"
    add = f"acc = add_values(acc, s, p, v_tile, {exact}, PRECISION)"
    return [*lines, *fill(values).splitlines(), add]


def all_unnormalised(weigher: Weigher) -> bool:
    heads = [head for case in weigher.features.unnormalised for head in case.heads]
    return weigher.covers_all(heads)


def _weight_lines(
    weigher: Weigher, case: WeightCase, condition: str, follows: bool
) -> list[str]:
    argument = number_text(case.argument)
    if case.kind is WeightKind.RELU2:
        weights = f"p = squared_relu(s, {argument})"
    else:
        weights = f"p = sigmoid(s + {argument})"
    body = [f"# {place(case.span)}", weights]
    if weigher.covers_all(case.heads):
        return body
    last = case is weigher.features.unnormalised[-1] and all_unnormalised(weigher)
    word = "else:" if last else f"{'elif' if follows else 'if'} {condition}:"
    return [word, *("    " + line for line in body)]


def sink_lines(weigher: Weigher) -> list[str]:
    """After the loops: the learned logit of each row joins the sum."""
    cases = weigher.features.sinks
    if not cases:
        return []
    lines = ['sink = tl.full([BLOCK_Q, 1], float("-inf"), tl.float32)']
    for at, case in enumerate(cases):
        lines += _condition(weigher, f"in_sink_{at}", case)
        lines += dispatched(
            weigher,
            f"in_sink_{at}",
            case,
            partial(value_lines, weigher, "sink", case.logit, {}, "[BLOCK_Q, 1]"),
            _AT_TOP,
        )
    call = "top, total, acc = join_sink(top, total, acc, sink)"
    return [*lines, "sink = tl.reshape(sink, [BLOCK_Q])", call]


def no_sum_lines(weigher: Weigher) -> list[str]:
    """At the end: no LSE without a sum."""
    lines: list[str] = []
    heads = [head for case in weigher.features.unnormalised for head in case.heads]
    if heads:
        lines += weigher.printer.assign(
            "has_no_sum", heads_condition(sorted(heads)), _AT_TOP
        )
        lines.append('row_lse = tl.where(has_no_sum, float("nan"), row_lse)')
    return lines


def output_lines(weigher: Weigher) -> list[str]:
    """At the end: what stands in the place of the output."""
    lines: list[str] = []
    if weigher.features.reads_own_value:
        lines += fill("own_values").splitlines()
    values = {Given.OUTPUT: "acc", Given.VALUE: "own"}
    for at, case in enumerate(weigher.features.outputs):
        lines += _condition(weigher, f"in_output_{at}", case)
        lines += dispatched(
            weigher,
            f"in_output_{at}",
            case,
            partial(
                value_lines, weigher, "acc", case.output, values, "[BLOCK_Q, BLOCK_DV]"
            ),
            _AT_TOP,
        )
    return lines


def epilogue_lines(weigher: Weigher) -> list[str]:
    """After the loops: rows that are whole, as the call gives them.

    What a training step leaves to `finish`, where autograd sees it, waits for EPILOGUE.
    """
    return fill(
        "epilogue",
        {
            "sinks": _if_epilogue(sink_lines(weigher)),
            "no_sum": no_sum_lines(weigher),
            "outputs": _if_epilogue(output_lines(weigher)),
        },
    ).splitlines()


def _if_epilogue(lines: list[str]) -> list[str]:
    return ["if EPILOGUE:", *("    " + line for line in lines)] if lines else []


def dispatched(
    weigher: Weigher,
    condition: str,
    case: Case,
    body: Callable[[int], list[str]],
    indent: int,
) -> list[str]:
    """The lines of a case, for its heads alone."""
    comment = f"# {place(case.span)}"
    if weigher.covers_all(case.heads):
        return [comment, *body(indent)]
    inner = ["    " + line for line in (comment, *body(indent + 4))]
    return [f"if {condition}:", *inner]


def value_lines(
    weigher: Weigher,
    target: str,
    expr: FloatExpr,
    given: dict[Given, str],
    shape: str,
    indent: int,
) -> list[str]:
    """`target = expr` with the elements that it reads, in a shape (if not empty)."""
    expr = folded_float(expr)
    loaded = weigher.loaded.copy()
    loads = load_lines(reads_of_float(expr), weigher.printer, loaded, indent)
    lines: list[str] = []
    for width in _WIDTHS:
        discrete = replace(weigher.printer, reads=loaded.ints)
        printer = FloatPrinter(
            TRITON, discrete, loaded.floats, given, target, indent, width
        )
        text = printer.text_of_all(expr)
        if shape and not any(
            GivenValue(word) in float_subexpressions(expr) for word in given
        ):
            text = f"tl.zeros({shape}, tl.float32) + ({text})"
        lines = [*printer.lines, f"{target} = {text}"]
        if all(len(line) + indent <= COLUMNS for line in lines):
            break
    return [*loads, *lines]
