"""The grammar: precedence, words, spans, and all syntax errors at once."""

from __future__ import annotations

from fractions import Fraction

import pytest

from patternc.diagnostics import PatternError
from patternc.grammar import build_parser
from patternc.ir.nodes import CompareOp, Element, IntOp, Relation
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.build import Builder
from patternc.syntax.parse import parse


def body(text: str) -> ast.Expr:
    (item,) = parse(Source("x.pat", f"pattern p = {text}")).items
    assert isinstance(item, ast.Pattern)
    return item.body


def claim(text: str) -> ast.Claim:
    text = f"attention a {{ heads 1 mask full assert {text} }}"
    (item,) = parse(Source("x.pat", text)).items
    assert isinstance(item, ast.Attention)
    clause = item.clauses[-1]
    assert isinstance(clause, ast.Assert)
    return clause.claim


def messages(text: str) -> list[str]:
    with pytest.raises(PatternError) as caught:
        parse(Source("x.pat", text))
    return [item.message for item in caught.value.diagnostics]


def test_the_grammar_has_no_conflict_and_no_colliding_terminals() -> None:
    build_parser(Builder(), strict=True)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("a | b & c", "a | (b & c)"),
        ("~a & b", "(~a) & b"),
        ("~k <= q", "~(k <= q)"),
        ("k <= q & q - k < w", "(k <= q) & ((q - k) < w)"),
        (
            "a | ~b == c + d * e // f % -g",
            "a | (~(b == (c + (((d * e) // f) % (-g)))))",
        ),
        ("q - k - 1 == 0", "((q - k) - 1) == 0"),
        ("-q - k < -3 * 2", "((-q) - k) < ((-3) * 2)"),
        ("q in {1, 2} & a", "(q in {1, 2}) & a"),
        ("a[q, k][k, q]", "(a[q, k])[k, q]"),
        ("f(1)[q, k]", "(f(1))[q, k]"),
        ("--q == 0", "(-(-q)) == 0"),
        ("a * b / c // d == 0", "(((a * b) / c) // d) == 0"),
        ("q.x + doc[q] in {1}", "((q.x) + (doc[q])) in {1}"),
        ("-q.x == 0", "(-(q.x)) == 0"),
        ("t[q, k, 3][q, k]", "(t[q, k, 3])[q, k]"),
    ],
)
def test_precedence(short: str, full: str) -> None:
    assert body(short) == body(full)


def test_a_chain_is_one_node_and_brackets_end_it() -> None:
    chain = body("0 <= q - k < w")
    assert isinstance(chain, ast.Chain)
    assert [link.op for link in chain.links] == [CompareOp.LE, CompareOp.LT]
    assert body("(0 <= q) < w") != body("0 <= q < w")


def test_newlines_and_comments_mean_nothing() -> None:
    spread = "pattern\np\n(\nw # a comment\n,)\n=\n0 <=\n#\nq - k < w"
    assert parse(Source("x", spread)) == parse(
        Source("x", "pattern p(w) = 0 <= q - k < w")
    )
    text = "attention a { heads 2 mask full for h == 0 mask causal otherwise }"
    (item,) = parse(Source("x", text)).items
    assert isinstance(item, ast.Attention)
    assert len(item.clauses) == 3


def test_words_are_names_where_they_mean_nothing() -> None:
    text = "pattern p(kv, at, over, runtime, int) = kv + at + over + runtime <= int"
    assert parse(Source("x", text)).items


def test_parameters() -> None:
    text = "attention a(w, n = -3, r: runtime, s: runtime int = 2, p: float = 0.5) {}"
    (item,) = parse(Source("x", text)).items
    seen = [(p.name.text, p.runtime, p.kind) for p in item.parameters]
    assert seen == [
        ("w", False, None),
        ("n", False, None),
        ("r", True, None),
        ("s", True, ast.Kind.INT),
        ("p", False, ast.Kind.FLOAT),
    ]
    defaults = [p.default for p in item.parameters]
    half = ast.Decimal(Fraction(1, 2))
    assert defaults == [
        None,
        ast.Negative(ast.Integer(3)),
        None,
        ast.Integer(2),
        half,
    ]


def test_asserts() -> None:
    mask, causal = ast.TheMask(), ast.Name("causal")
    union = ast.UnionOver(ast.Name("h"))
    both = ast.Intersection((causal, ast.Name("full")))
    assert claim("mask within causal") == ast.SetClaim(Relation.WITHIN, mask, causal)
    assert claim("mask == causal & full") == ast.SetClaim(Relation.EQUAL, mask, both)
    assert claim("union over h == causal") == ast.SetClaim(
        Relation.EQUAL, union, causal
    )
    of_set = ast.Link(None, ast.SetOf((ast.Name("q"), ast.Integer(0))))
    assert claim("k in {q, 0} within mask") == ast.SetClaim(
        Relation.WITHIN, ast.Chain(ast.Name("k"), (of_set,)), mask
    )
    assert claim("causal & full within mask") == ast.SetClaim(
        Relation.WITHIN, both, mask
    )
    compared = ast.Chain(causal, (ast.Link(CompareOp.EQ, mask),))
    assert claim("causal == mask") == ast.BareClaim(compared)
    assert claim("every q has k") == ast.EveryRowClaim(ast.Name("q"), ast.Name("k"))
    found = claim("density < 0.07 at N = 131072")
    assert isinstance(found, ast.DensityClaim)
    assert found.bound == ast.Decimal(Fraction(7, 100))


def clauses(text: str) -> tuple[ast.Clause, ...]:
    (item,) = parse(Source("x.pat", f"attention a {{ {text} }}")).items
    assert isinstance(item, ast.Attention)
    return item.clauses


def test_layouts() -> None:
    text = "layout l = text[226] + video[f = 13, x = 2 * w,] + tail[9, valid = n]"
    (item,) = parse(Source("x.pat", text)).items
    assert isinstance(item, ast.Layout)
    assert [segment.name.text for segment in item.segments] == ["text", "video", "tail"]
    names = [
        [None if part.name is None else part.name.text for part in segment.arguments]
        for segment in item.segments
    ]
    assert names == [[None], ["f", "x"], [None, "valid"]]
    assert item.span.text == text
    assert item.segments[2].arguments[1].span.text == "valid = n"


def test_inputs() -> None:
    doc, keep, scale = clauses(
        "input doc[b, k] : int sorted input keep[h, q // 128,] : bool input t : float"
    )
    assert isinstance(doc, ast.Input) and isinstance(keep, ast.Input)
    assert doc.axes == (ast.Name("b"), ast.Name("k"))
    assert (doc.element, doc.is_sorted) == (Element.INT, True)
    assert doc.span.text == "input doc[b, k] : int sorted"
    assert (keep.element, keep.is_sorted) == (Element.BOOL, False)
    assert keep.span.text == "input keep[h, q // 128,] : bool"
    assert scale == ast.Input(ast.Name("t"), (), Element.FLOAT, False)


def test_orders_and_weights() -> None:
    tile, phase, weights, plain, skip = clauses(
        "order video by tile(f = 6, y = 8) for h == 0 order all by phase(4) otherwise"
        " weights relu2(0.5) for h == 1 weights softmax skip for h in {2}"
    )
    assert isinstance(tile, ast.Order) and isinstance(phase, ast.Order)
    assert [part.name for part in tile.arguments] == [ast.Name("f"), ast.Name("y")]
    assert (phase.segment, phase.kind) == (ast.Name("all"), ast.Name("phase"))
    assert (phase.condition, phase.otherwise) == (None, True)
    assert phase.span.text == "order all by phase(4) otherwise"
    assert isinstance(weights, ast.Weights)
    assert weights.argument == ast.Decimal(Fraction(1, 2))
    assert plain == ast.Weights(ast.Name("softmax"), None, None, False)
    assert isinstance(skip, ast.Skip)


def test_scores_sinks_and_outputs() -> None:
    score, sink, output = clauses("score s / 2 + q.x sink t[h] output (1 - u) * o")
    assert isinstance(score, ast.Score) and isinstance(score.body, ast.Arithmetic)
    halved = ast.Ratio(ast.Name("s"), ast.Integer(2))
    assert score.body.lhs == halved
    assert score.body.rhs == ast.Coordinate(ast.Name("q"), ast.Name("x"))
    assert isinstance(sink, ast.Sink)
    assert sink.body == ast.Indexed(ast.Name("t"), (ast.Name("h"),))
    assert isinstance(output, ast.Output)


def test_clause_words_are_names_elsewhere() -> None:
    text = "pattern sink(order, by, input, score, output, skip, weights, sorted) ="
    parse(Source("x.pat", f"{text} order + by + input + score < output"))
    parsed = clauses(
        "mask sink(3) | layout & order sink 0.5 assert mask within sink(3)"
    )
    assert [type(one) for one in parsed] == [ast.Mask, ast.Sink, ast.Assert]


def test_a_layout_starts_an_item_only_where_it_declares() -> None:
    text = "layout a = text[\nattention x {\nlayout a\nheads\n}\nlayout c = d[)\n"
    assert messages(text) == [
        "expected an expression, found the next item",
        "expected an expression, found `}`",
        "expected an expression, found `)`",
    ]


def test_spans_are_the_narrowest() -> None:
    text = "  pattern p(w) = (k <= q) & window(w)[q // 2, k] # end"
    (item,) = parse(Source("x", text)).items
    assert isinstance(item, ast.Pattern)
    assert item.span.text == "pattern p(w) = (k <= q) & window(w)[q // 2, k]"
    assert isinstance(item.body, ast.Intersection)
    first, second = item.body.terms
    assert (first.span.text, second.span.text) == ("(k <= q)", "window(w)[q // 2, k]")
    assert isinstance(second, ast.Indexed)
    query = second.indices[0]
    assert isinstance(query, ast.Arithmetic)
    assert query.span.text == "q // 2"
    assert query.op is IntOp.FLOORDIV


def test_all_syntax_errors_are_found_at_once() -> None:
    text = "pattern a = k <=\npattern b(w = full\npattern c = full\ndef d( = 3\n"
    assert messages(text) == [
        "expected an expression, found the next item",
        "expected `,`, `)` or an operator, found the next item",
        "expected `)` or a name, found `=`",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pattern", "expected a name, found the end of the file"),
        (
            "3",
            (
                "expected `pattern`, `def`, `layout`, `attention` or the end of the"
                " file, found `3`"
            ),
        ),
        ("attention a { mask for h }", "expected an expression, found `for`"),
        (
            "attention a { heads 1 mask full",
            (
                "expected `}`, `else`, `for`, `otherwise` or a clause such as `mask`,"
                " found the end of the file"
            ),
        ),
        ("pattern p = q.3 < 4", "expected a name, found `3`"),
        ("pattern p = abs((q).f) < 4", "expected `,`, `)` or an operator, found `.`"),
        ("pattern p = Q @", "expected an expression, found the end of the file"),
        ("layout a = text", "expected `[`, found the end of the file"),
        ("layout a = text[]", "expected an expression, found `]`"),
        ("attention a { let x }", "expected `=`, found `}`"),
        (
            "attention a { let x = top(3, y where k < 2 always) }",
            "expected `,`, `)` or an operator, found `always`",
        ),
        ("attention a { mask full if k < q }", "expected `else`, found `}`"),
        ("attention a { mask full else dense }", "expected `when`, found `}`"),
        ("attention a { schedule x }", "expected `{`, found `x`"),
        ("attention a { heads 1 mask full order x }", "expected `by`, found `}`"),
        ("attention a { input x[k] }", "expected `:`, found `}`"),
        (
            "attention a { input x : long }",
            "expected `bool`, `float` or `int`, found `long`",
        ),
        ("attention a { skip mask full }", "expected `for`, found `mask`"),
    ],
)
def test_messages(text: str, message: str) -> None:
    assert messages(text) == [message]


def test_an_error_at_the_end_points_behind_the_last_character() -> None:
    with pytest.raises(PatternError) as caught:
        parse(Source("x.pat", "pattern a = k <=   \n\n\n"))
    (found,) = caught.value.diagnostics
    assert (found.span.line, found.span.start) == (1, 16)
