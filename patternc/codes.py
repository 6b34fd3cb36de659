"""Every diagnostic code, with a sentence and an example of wrong and right.

In: nothing. Out: `CODES`, for `patternc explain CODE` and for tests: the wrong example
of each code gives exactly that code, the right one gives none. Not its job: finding
mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means.

    `bad` and `good` are whole files. They are empty for codes about a file that cannot
    be read, and for those that another stage than "check" gives. With
    `entry` or `values` the example is one of asking for an entry of the file.
    """

    name: str
    meaning: str
    bad: str = ""
    good: str = ""
    stage: str = "check"
    entry: str | None = None
    values: Mapping[str, int | float] = field(default_factory=dict)


def _attention(clauses: str) -> str:
    return f"attention example {{\n    {clauses}\n}}\n"


_FILES = (
    Code("cannot-read", "The file is missing, unreadable or no file.", stage="file"),
    Code("not-utf8", "A `.pat` file is UTF-8 text.", stage="file"),
    Code("file-size", "A `.pat` file has at most 1 MiB.", stage="file"),
)

_SYNTAX = (
    Code(
        "syntax",
        "Something stands where the grammar has no place for it.",
        "pattern p = k <=\n",
        "pattern p = k <= q\n",
    ),
    Code(
        "unsupported",
        "A part of the language that this version does not have.",
        _attention("heads 8\n    let mass = norm(V) < 1\n    mask mass"),
        _attention("heads 8\n    mask full"),
    ),
    Code(
        "number-range",
        "A number has at most 64 bits, or 30 decimal digits.",
        "pattern p = k < 9223372036854775808\n",
        "pattern p = k < 9223372036854775807\n",
    ),
    Code(
        "bad-schedule",
        "A schedule block sets block_q, block_k, warps and stages, within limits.",
        _attention("heads 1\n    mask full\n    schedule { block_q = 48 }"),
        _attention("heads 1\n    mask full\n    schedule { block_q = 64 }"),
    ),
    Code(
        "name-length",
        "A name has at most 64 characters.",
        f"pattern {'long_' * 13} = k <= q\n",
        "pattern short = k <= q\n",
    ),
    Code(
        "token-count",
        "A file has at most 20,000 words, numbers and signs.",
        "pattern p = " + "1+" * 10_001 + "1 <= q\n",
        "pattern p = 1 <= q\n",
    ),
    Code(
        "nesting",
        "Brackets, signs and operators nest at most 100 levels deep.",
        "pattern p = " + "~" * 101 + "full\n",
        "pattern p = ~full\n",
    ),
)

_NAMES = (
    Code(
        "unknown-name",
        "A name is declared by the file or is a standard pattern.",
        "pattern p(w) = windw(w)\n",
        "pattern p(w) = window(w)\n",
    ),
    Code(
        "duplicate-name",
        "A name is declared once.",
        "pattern p = k <= q\npattern p = k < q\n",
        "pattern p = k <= q\npattern r = k < q\n",
    ),
    Code(
        "reserved-name",
        "Names of indices, tensors, built-in functions and a call's arguments are taken.",
        "pattern p(k) = k <= q\n",
        "pattern p(n) = n <= q\n",
    ),
    Code(
        "hides-standard",
        "A warning: the file declares a name that a standard pattern has.",
        "pattern causal = k < q\n",
        "pattern strictly_causal = k < q\n",
    ),
    Code(
        "recursion",
        "A pattern or function is defined without itself.",
        "pattern p = r & k <= q\npattern r = ~p\n",
        "pattern p = r & k <= q\npattern r = ~full\n",
    ),
    Code(
        "bad-parameter",
        "Run-time parameters are integers of attentions; defaults come last.",
        "pattern p(w: runtime) = window(w)\n",
        "pattern p(w) = window(w)\n",
    ),
)

_TYPES = (
    Code(
        "arity",
        "A call or a read gives as many arguments or indices as were declared.",
        "pattern p = window(3, 4)\n",
        "pattern p = window(3)\n",
    ),
    Code(
        "type",
        "Arithmetic takes numbers, a mask's and `//` integers; `&`, `|`, `~` patterns.",
        "pattern p = k <= q & 3\n",
        "pattern p = k <= q & k < 3\n",
    ),
    Code(
        "bad-assert",
        "An assert compares sets of pairs, or bounds the retention or the density.",
        _attention("heads 8\n    mask full\n    assert (mask & causal) within full"),
        _attention("heads 8\n    mask full\n    assert mask within full"),
    ),
    Code(
        "missing-clause",
        "An attention has `heads` and a `mask`.",
        _attention("mask full"),
        _attention("heads 8 mask full"),
    ),
    Code(
        "duplicate-clause",
        "An attention has one `heads` and at most one `layout`.",
        _attention("heads 8 heads 4 mask full"),
        _attention("heads 8 mask full"),
    ),
)

_LAYOUT = "layout picture = text[77] + image[y = 32, x = 32]\n"


def _placed(clauses: str) -> str:
    """An attention with the layout above."""
    return _LAYOUT + _attention(f"heads 8\n    layout picture\n    {clauses}")


def _data(clauses: str) -> str:
    return _attention(f"heads 8\n    {clauses}")


_CLAUSES = (
    Code(
        "unknown-axis",
        "A coordinate, and an order, name axes of the attention's layout.",
        _placed("mask q.z == k.z"),
        _placed("mask q.x == k.x"),
    ),
    Code(
        "unknown-segment",
        "What stands after `in`, or has an order, is a segment of the layout.",
        _placed("mask q in texts"),
        _placed("mask q in text"),
    ),
    Code(
        "bad-layout",
        "A segment has one size or named axes; `valid` is a run-time number.",
        _LAYOUT.replace("77", "0") + _attention("heads 8 layout picture mask full"),
        _LAYOUT + _attention("heads 8 layout picture mask full"),
    ),
    Code(
        "bad-order",
        "An order is a permutation of tokens: every axis once, tiles that fit.",
        _placed("mask full\n    order image by axes(x, x)"),
        _placed("mask full\n    order image by axes(x, y)"),
    ),
    Code(
        "bad-input",
        "The axes of an input are `b` (first), `h`, `g`, positions and sizes.",
        _data("input doc[k % 2] : int\n    mask doc[k] == 0"),
        _data("input doc[k // 2] : int\n    mask doc[k // 2] == 0"),
    ),
    Code(
        "bad-read",
        "An input that is declared over queries is read there, where it is declared.",
        _data("input reach[q] : int\n    mask q - k < reach[k]"),
        _data("input reach[q] : int\n    mask q - k < reach[q]"),
    ),
    Code(
        "unread-input",
        "A warning: an input is declared and never read.",
        _data("input doc[k] : int\n    mask full"),
        _data("input doc[k] : int\n    mask doc[k] == 0"),
    ),
    Code(
        "bad-weights",
        "Weights are `softmax`, `relu2(c)` or `sigmoid(b)`.",
        _data("mask full\n    weights relu2"),
        _data("mask full\n    weights relu2(0.5)"),
    ),
    Code(
        "unread-let",
        "A `let` that nothing reads has no effect.",
        _attention("heads 8\n    let mass = sum(scores by k)\n    mask full"),
        _attention(
            "heads 8\n    let columns = top(4, sum(scores by k))\n    mask k in columns"
        ),
    ),
    Code(
        "bad-key",
        "A map knows `q` and `k` by its keys alone, which are three at most.",
        _attention(
            "heads 8\n    let coarse = mean(Q by q // 64) @ mean(K by k // 64)\n"
            "    let best = top(4, coarse where k <= q per q // 64)\n"
            "    mask (q // 64, k // 64) in best"
        ),
        _attention(
            "heads 8\n    let coarse = mean(Q by q // 64) @ mean(K by k // 64)\n"
            "    let best = top(4, coarse where k // 64 <= q // 64 per q // 64)\n"
            "    mask (q // 64, k // 64) in best"
        ),
    ),
    Code(
        "bad-amount",
        "A budget is at least 0, a share lies between 0 and 1, and `min` below `max`.",
        _attention(
            "heads 8\n    let best = top_p(90.0, scores per q)\n    mask (q, k) in best"
        ),
        _attention(
            "heads 8\n    let best = top_p(0.9, scores per q)\n    mask (q, k) in best"
        ),
    ),
    Code(
        "bad-mask",
        "Only a mask that reads selections may be dense where that is cheaper.",
        _attention("heads 8\n    mask causal else dense when cheaper"),
        _attention(
            "heads 8\n    let best = top(4, sum(scores by k))\n"
            "    mask causal & k in best else dense when cheaper"
        ),
    ),
    Code(
        "wrong-place",
        "`s` stands in `score`, `o` and `v` in `output`; there is no `k` in an output.",
        _data("mask full\n    output o * s"),
        _data("mask full\n    output o * 2"),
    ),
)

_VALUES = (
    Code(
        "zero-division",
        "A divisor is never 0, whatever the indices and run-time parameters are.",
        "pattern p = q // h == k\n",
        "pattern p = q // max(h, 1) == k\n",
    ),
    Code(
        "overflow",
        "No integer leaves 64 bits at any position up to 2**30.",
        "pattern p = q * q * q <= k\n",
        "pattern p = q * q <= k\n",
    ),
    Code(
        "expansion",
        "A mask has at most 20,000 operations (a file's masks 50,000) and 150 levels.",
        "pattern p0 = k <= q\n"
        + "".join(f"pattern p{i + 1} = p{i} & p{i}\n" for i in range(16)),
        "pattern p0 = k <= q\npattern p1 = p0 & p0\n",
    ),
    Code(
        "more-findings",
        "A file has more than 100 findings; the first ones are shown.",
        "pattern p = " + " & ".join(f"unknown{i}" for i in range(101)) + "\n",
        "pattern p = k <= q\n",
        stage="limit",
    ),
    Code(
        "sink-without-sum",
        "A sink joins the sum of a softmax; other weights have no sum.",
        _attention("heads 4 mask full\n    weights sigmoid\n    sink 1"),
        _attention("heads 4 mask full\n    weights softmax\n    sink 1"),
    ),
    Code(
        "not-constant",
        "Counts of heads, bounds, and the conditions of `for` are known at once.",
        _attention("heads N mask full"),
        _attention("heads 8 mask full"),
    ),
    Code(
        "heads",
        "1 to 65,536 heads share the key/value heads evenly.",
        _attention("heads 9 kv 2 mask full"),
        _attention("heads 9 kv 3 mask full"),
    ),
    Code(
        "head-range",
        "A `for` names heads that there are.",
        _attention("heads 4\n    mask full for h in {4}\n    mask causal otherwise"),
        _attention("heads 4\n    mask full for h in {3}\n    mask causal otherwise"),
    ),
    Code(
        "no-head",
        "A `for` selects at least one head.",
        _attention("heads 4\n    mask full for h > 3\n    mask causal otherwise"),
        _attention("heads 4\n    mask full for h > 2\n    mask causal otherwise"),
    ),
    Code(
        "case-overlap",
        "A head has one mask, and one at most of every other clause with cases.",
        _attention("heads 4\n    mask full for h < 3\n    mask causal for h >= 2"),
        _attention("heads 4\n    mask full for h < 3\n    mask causal for h >= 3"),
    ),
    Code(
        "case-missing",
        "Every head has a mask.",
        _attention("heads 4\n    mask full for h < 3"),
        _attention("heads 4\n    mask full for h < 3\n    mask causal otherwise"),
    ),
)

_PARAMETERISED = "attention example(w) {\n    heads 8\n    mask window(w)\n}\n"

_ENTRIES = (
    Code(
        "missing-value",
        "A parameter has a value or a default.",
        _PARAMETERISED,
        _PARAMETERISED.replace("(w) {", "(w = 64) {"),
        entry="example",
    ),
    Code(
        "unknown-parameter",
        "A value is given for a parameter that there is.",
        _PARAMETERISED.replace("(w) {", "(w = 64) {"),
        _PARAMETERISED.replace("(w)", "(x)"),
        entry="example",
        values={"x": 3},
    ),
    Code(
        "wrong-value",
        "A value is of its parameter's type and fits.",
        _PARAMETERISED,
        _PARAMETERISED.replace("(w) {", "(w: float) {").replace("window(w)", "full"),
        entry="example",
        values={"w": 0.5},
    ),
    Code(
        "entry",
        "An entry is an attention or a pattern of the file.",
        "attention example { heads 8 mask full }\n",
        "attention other { heads 8 mask full }\n",
        entry="other",
    ),
)

_PROOFS = (
    Code(
        "assert-failed",
        "An assert is false; the message shows a counterexample.",
        _attention("heads 8\n    mask full\n    assert mask within causal"),
        _attention("heads 8\n    mask causal\n    assert mask within causal"),
        stage="proof",
    ),
    Code(
        "assert-undecided",
        "An assert could be neither proved nor refuted within the limits.",
        stage="proof",
    ),
)

CODES: Mapping[str, Code] = {
    code.name: code
    for codes in (_FILES, _SYNTAX, _NAMES, _TYPES, _CLAUSES, _VALUES, _ENTRIES, _PROOFS)
    for code in codes
}
"""Every code by its name, in the order of the stages that give it."""
