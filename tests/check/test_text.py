"""What is printed of an attention reads back as the same one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from patternc.check import lower
from patternc.ir.nodes import Attention
from patternc.ir.text import (
    print_attention,
    print_expr,
    print_float,
    print_input,
    print_layout,
    print_order,
)
from patternc.source import Source
from patternc.syntax.parse import parse

LAYOUT = """
layout scene = text[5] + video[f = 2, y = 3, x = 4] + tail[3, valid = n]
"""

PROGRAMS = {
    "orders": LAYOUT
    + """
attention it(n: runtime = 2) {
    heads 6 kv 3
    layout scene
    input label[k] : int
    mask  k <= q & q.f == k.f
    order video by tile(x = 4, f = 1, y = 2)  for h == 0
    order video by axes(x, f, y)              for h == 1
    order video by curve(morton)              for h == 2
    order tail by labels(label)               for h == 3
    order all by phase(4)                     for h > 3
}
""",
    "inputs": """
attention it(n: runtime) {
    heads 4
    input a[b, h, g, k, 7] : int
    input c[(k - 192) // 8, q // 128] : float
    input d[k - 3] : int sorted
    input e : int
    input f[q] : float
    mask  a[h, g, q, n] < e & d[k - 3] == 0
    score s + c[(k - 192) // 8, q // 128] * f[q]
}
""",
    "numbers": """
attention it(n: runtime = 3) {
    heads 8
    input t[h] : float
    mask  window(n + layer) & ~(k % 2 == 0 | q == k)
    score (s - (t[h] - 1)) / (2 / s) * -(s + 1)   for h == 0
    score s - (0.5 - (k - q)) - -1.5              for h == 1
    score min(s, t[h]) * max(abs(s), 2) + (k + 1) * 3   for h == 2
    score where(k <= q | h == 1, softcap(s, 3), -exp(s))   for h == 3
    score s / (t[h] * (q - k))                    for h == 4
    weights relu2(0.25)                           for h == 5
    weights sigmoid(-2.5)                         for h == 6
    sink  t[h] * 2 - 0.5                          for h < 4
    output sigmoid(t[h]) * o + (1 - t[h]) * v     for step > 3
}
""",
}


def rewritten(attention: Attention) -> str:
    """The program that an attention prints as, its clauses one by one."""
    layout = attention.layout
    lines = [f"layout {print_layout(layout)}"] if layout is not None else []
    shown = [
        f"{one.name}: runtime"
        + (f" = {one.default}" if one.default is not None else "")
        for one in attention.params
        if one.name not in ("layer", "step")
    ]
    lines.append(f"attention {attention.name}({', '.join(shown)}) {{")
    lines.append(f"heads {attention.heads} kv {attention.kv_heads}")
    lines += [f"layout {layout.name}"] if layout is not None else []
    lines += [f"input {print_input(table)}" for table in attention.inputs]
    for mask in attention.cases:
        lines.append(f"mask {print_expr(mask.mask)} {_for(mask.heads)}")
    for order in attention.orders:
        lines.append(f"order {print_order(order, layout)} {_for(order.heads)}")
    for score in attention.scores:
        lines.append(f"score {print_float(score.score)} {_for(score.heads)}")
    for sink in attention.sinks:
        lines.append(f"sink {print_float(sink.logit)} {_for(sink.heads)}")
    for output in attention.outputs:
        lines.append(f"output {print_float(output.output)} {_for(output.heads)}")
    return "\n".join([*lines, "}"])


def _for(heads: Sequence[int]) -> str:
    return f"for h in {{{', '.join(map(str, heads))}}}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_reads_back(name: str) -> None:
    first = lower(parse(Source(name, PROGRAMS[name])))
    text = rewritten(first)
    again = lower(parse(Source(name, text)))
    assert rewritten(again).splitlines()[1:3] == text.splitlines()[1:3]
    assert again.inputs == first.inputs
    assert again.layout == first.layout
    assert again.orders == first.orders
    assert again.scores == first.scores
    assert again.sinks == first.sinks
    assert again.outputs == first.outputs
    assert again.params == first.params


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_clause_is_printed(name: str) -> None:
    attention = lower(parse(Source(name, PROGRAMS[name])))
    text = print_attention(attention)
    words = [line.split()[0] for line in text.splitlines()[1:-1]]
    counts = {
        "input": len(attention.inputs),
        "mask": len(attention.cases),
        "order": len(attention.orders),
        "score": len(attention.scores),
        "weights": len(attention.weights),
        "sink": len(attention.sinks),
        "output": len(attention.outputs),
        "layout": int(attention.layout is not None),
    }
    assert {word: words.count(word) for word in counts} == counts


def test_numbers_are_printed_as_they_are_written() -> None:
    text = print_attention(lower(parse(Source("x", PROGRAMS["numbers"]))))
    for line in (
        "score (s - (t[h] - 1.0)) / (2.0 / s) * (-(s + 1.0))  for h in {0}",
        "score s - (0.5 - (k - q)) - -1.5  for h in {1}",
        "score min(s, t[h]) * max(abs(s), 2.0) + (k + 1) * 3  for h in {2}",
        "weights relu2(0.25)  for h in {5}",
        "weights sigmoid(-2.5)  for h in {6}",
        "sink  t[h] * 2.0 - 0.5  for h in {0..3}",
    ):
        assert line in text
