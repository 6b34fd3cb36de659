"""Random programs for the property tests.

In: nothing. Out: Hypothesis strategies for masks, attentions, sizes, offsets and
schedules, and `pat_text`, which writes an attention as a `.pat` program. Not its job:
what a test makes of them.

Masks are drawn from the shapes that people write (windows, sinks, dilations, blocks,
head-dependent residues) as well as from plain comparisons, with constants of the size
of the lengths, so that few of them are full or empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from patternc.ir.nodes import (
    HEAD,
    KEY,
    LENGTH,
    QUERY,
    Abs,
    All,
    Any,
    Attention,
    AxesOrder,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    CurveKind,
    CurveOrder,
    HeadCase,
    Index,
    IntExpr,
    IntOp,
    LabelOrder,
    Layout,
    Not,
    OrderCase,
    Param,
    PhaseOrder,
    Read,
    RuntimeParam,
    Segment,
    TileOrder,
    TokenOrder,
)
from patternc.ir.text import print_expr
from patternc.plan.kernel import Schedule

PARAM = "width"
"""The one run-time parameter that `attentions(runtime=True)` declares."""

constants = st.one_of(st.integers(-8, 8), st.integers(-70, 140)).map(Const)
divisors = st.one_of(
    st.integers(1, 9), st.sampled_from((16, 24, 32, 64, -1, -3, -7, -16))
).map(Const)


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a call; `q_offset` is None for the default."""

    n_q: int
    n_k: int
    q_offset: int | None


lengths = st.one_of(
    st.sampled_from((1, 15, 16, 17, 63, 64, 65, 100, 129)), st.integers(1, 96)
)
offsets = st.one_of(
    st.none(), st.sampled_from((0, 1, -1, 16, 64, -64)), st.integers(-90, 200)
)
sizes = st.builds(Size, lengths, lengths, offsets)
schedules = st.builds(
    Schedule,
    block_q=st.sampled_from((16, 32, 64)),
    block_k=st.sampled_from((16, 32, 64)),
)


def ints(
    leaves: st.SearchStrategy[IntExpr], affine: bool
) -> st.SearchStrategy[IntExpr]:
    """Integer expressions over `leaves`; quasi-affine ones if `affine`."""

    def grow(inner: st.SearchStrategy[IntExpr]) -> st.SearchStrategy[IntExpr]:
        both = st.sampled_from((IntOp.ADD, IntOp.SUB, IntOp.MIN, IntOp.MAX))
        split = st.sampled_from((IntOp.FLOORDIV, IntOp.MOD))
        factors = st.integers(-4, 4).filter(bool).map(Const)
        shapes: list[st.SearchStrategy[IntExpr]] = [
            st.builds(Binary, both, inner, inner),
            st.builds(Binary, split, inner, divisors),
            st.builds(Binary, st.just(IntOp.MUL), factors, inner),
            st.builds(Abs, inner),
        ]
        if not affine:
            shapes.append(st.builds(Binary, st.just(IntOp.MUL), inner, inner))
            positive = st.builds(_one_more_than, leaves)
            shapes.append(st.builds(Binary, split, inner, positive))
        return st.one_of(shapes)

    return st.recursive(leaves, grow, max_leaves=4)


def masks(
    affine: bool = True, heads: bool = True, runtime: bool = False
) -> st.SearchStrategy[BoolExpr]:
    """Masks over `q`, `k`, now and then `N`, `h` if `heads`, `PARAM` if `runtime`.

    With `affine` every mask is quasi-affine, else also products of indices and
    divisors that are not constant occur.
    """
    indices: list[Index] = [QUERY, KEY, QUERY, KEY, LENGTH, *([HEAD] if heads else [])]
    leaves: st.SearchStrategy[IntExpr] = st.one_of(
        st.sampled_from(indices), constants, *([st.just(Param(PARAM))] * runtime)
    )
    compares = st.builds(
        Compare, st.sampled_from(CompareOp), ints(leaves, affine), ints(leaves, affine)
    )
    known = _known_shapes(heads, runtime)
    return st.recursive(st.one_of(known, known, compares), _combined, max_leaves=4)


def attentions(
    affine: bool = True, runtime: bool = False
) -> st.SearchStrategy[Attention]:
    """Attentions of one to six heads in one to three head groups, without asserts."""
    return st.sampled_from(((1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (6, 2))).flatmap(
        lambda count: _attention_of(*count, affine, runtime)
    )


@dataclass(frozen=True, slots=True)
class Data:
    """A square call with data: an attention, its inputs and the length."""

    attention: Attention
    tables: dict[str, NDArray[np.int64]]
    length: int


def data_masks(length: int) -> st.SearchStrategy[BoolExpr]:
    """Masks that read the tables of `tables_of_length`, with the guards of checking."""
    known = st.sampled_from(_known_reads(length))
    return st.recursive(st.one_of(known, masks(heads=False)), _combined, max_leaves=4)


def tables_of_length(length: int) -> st.SearchStrategy[dict[str, NDArray[np.int64]]]:
    """`doc` [n] rises, `width` [n], `keep` [2, blocks, blocks] and `tree` [20, 20]."""
    blocks = -(-length // BLOCK)

    def made(seed: int) -> dict[str, NDArray[np.int64]]:
        rng = np.random.default_rng(seed)
        share = rng.random()
        return {
            "doc": np.cumsum(rng.random(length) < share / 8),
            "width": rng.integers(-5, 40, length),
            "keep": (rng.random((2, blocks, blocks)) < share).astype(np.int64),
            "tree": (rng.random((20, 20)) < share).astype(np.int64),
            "label": rng.integers(0, 5, length),
        }

    return st.integers(0, 2**32 - 1).map(made)


BLOCK = 24
"""The block of the table `keep`."""


@st.composite
def data_attentions(draw: st.DrawFn) -> Data:
    """Two heads with one mask, data in it and any order, one to three segments."""
    layout = draw(layouts)
    length = layout.size
    orders = draw(orders_of(layout))
    case = HeadCase((0, 1), draw(data_masks(length)))
    attention = Attention("data", 2, 1, (), (case,), layout=layout, orders=orders)
    return Data(attention, draw(tables_of_length(length)), length)


def orders_of(
    layout: Layout, heads: tuple[int, ...] = (0, 1)
) -> st.SearchStrategy[tuple[OrderCase, ...]]:
    """At most one order for each segment, or one for the whole sequence."""
    strides = st.integers(1, 20).map(PhaseOrder)
    anywhere = st.one_of(strides, st.just(LabelOrder("label")))
    whole = anywhere.map(lambda order: (OrderCase(heads, None, order),))
    parts = []
    for segment in layout.segments:
        kinds: list[st.SearchStrategy[TokenOrder]] = [anywhere]
        if segment.axes:
            names = [name for name, _ in segment.axes]
            kinds.append(st.permutations(names).map(lambda it: AxesOrder(tuple(it))))
            boxes = st.tuples(*[st.integers(1, 9) for _ in names])
            kinds.append(boxes.map(TileOrder))
            kinds.append(st.sampled_from(CurveKind).map(CurveOrder))
        case = st.builds(
            OrderCase, st.just(heads), st.just(segment.name), st.one_of(kinds)
        )
        parts.append(st.one_of(st.none(), case))
    some = st.tuples(*parts).map(lambda cases: tuple(c for c in cases if c is not None))
    return st.one_of(some, whole)


@st.composite
def _layout(draw: st.DrawFn) -> Layout:
    """Text, an image or a video, and text, each of which may be missing."""
    segments: list[Segment] = []
    start = 0
    axes = draw(
        st.one_of(
            st.tuples(st.integers(1, 12), st.integers(1, 12)),
            st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
        )
    )
    named = tuple(zip("fyx"[-len(axes) :], axes, strict=True))
    for name, size, has in (
        ("before", draw(st.integers(1, 40)), draw(st.booleans())),
        ("video", math.prod(axes), True),
        ("after", draw(st.integers(1, 40)), draw(st.booleans())),
    ):
        if has:
            own = named if name == "video" else ()
            segments.append(Segment(name, start, size, own))
            start += size
    return Layout("random", tuple(segments))


layouts = _layout()


def pat_text(attention: Attention) -> str:
    """The attention as a `.pat` program, every case with its heads written out."""
    lines = [f"attention {attention.name}{_parameters(attention)} {{"]
    lines.append(f"    heads {attention.heads} kv {attention.kv_heads}")
    for case in attention.cases:
        heads = ", ".join(str(head) for head in case.heads)
        lines.append(f"    mask {print_expr(case.mask)} for h in {{{heads}}}")
    return "\n".join([*lines, "}", ""])


def _known_shapes(heads: bool, runtime: bool) -> st.SearchStrategy[BoolExpr]:
    """The patterns of the standard library, written out, with random numbers."""
    back = Binary(IntOp.SUB, QUERY, KEY)
    widths: st.SearchStrategy[IntExpr] = st.integers(1, 90).map(Const)
    if runtime:
        widths = st.one_of(widths, st.just(Param(PARAM)))
    causal = Compare(CompareOp.LE, KEY, QUERY)
    known: list[st.SearchStrategy[BoolExpr]] = [
        st.just(causal),
        widths.map(lambda w: _window(back, w)),
        widths.map(lambda w: Compare(CompareOp.LE, Abs(back), w)),
        widths.map(lambda n: Compare(CompareOp.LT, KEY, n)),
        divisors.map(lambda d: _equal(_op(IntOp.MOD, back, d), Const(0))),
        divisors.map(
            lambda b: _equal(_op(IntOp.FLOORDIV, QUERY, b), _op(IntOp.FLOORDIV, KEY, b))
        ),
    ]
    if heads:
        shifted = _op(IntOp.ADD, _op(IntOp.ADD, KEY, HEAD), Const(1))
        known.append(
            divisors.map(lambda d: _equal(_op(IntOp.MOD, shifted, d), Const(0)))
        )
        known.append(
            widths.map(lambda w: _window(back, _op(IntOp.ADD, w, _op_times(HEAD, 16))))
        )
    return st.one_of(known)


def _known_reads(length: int) -> list[BoolExpr]:
    """Documents, windows per token, tables of blocks and trees."""
    back = _op(IntOp.SUB, QUERY, KEY)
    doc_q, doc_k = Read("doc", (QUERY,)), Read("doc", (KEY,))
    row, column = (
        _op(IntOp.FLOORDIV, QUERY, Const(BLOCK)),
        _op(IntOp.FLOORDIV, KEY, Const(BLOCK)),
    )
    block = Read("keep", (HEAD, row, column))
    leaf = tuple(_op(IntOp.SUB, at, Const(7)) for at in (QUERY, KEY))
    in_tree = [_inside(at, 20) for at in leaf]
    return [
        _equal(doc_q, doc_k),
        Compare(CompareOp.LE, doc_q, doc_k),
        Compare(CompareOp.LE, back, Read("width", (QUERY,))),
        Compare(CompareOp.LT, Abs(back), Read("width", (KEY,))),
        All(
            (_inside(row, -(-length // BLOCK)), Compare(CompareOp.NE, block, Const(0)))
        ),
        All((*in_tree, Compare(CompareOp.NE, Read("tree", leaf), Const(0)))),
        _equal(_op(IntOp.MOD, Read("width", (QUERY,)), Const(3)), Const(1)),
    ]


def _inside(at: IntExpr, size: int) -> BoolExpr:
    return All(
        (Compare(CompareOp.GE, at, Const(0)), Compare(CompareOp.LT, at, Const(size)))
    )


def _combined(inner: st.SearchStrategy[BoolExpr]) -> st.SearchStrategy[BoolExpr]:
    terms = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(All, terms), st.builds(Any, terms), st.builds(Not, inner)
    )


@st.composite
def _attention_of(
    draw: st.DrawFn, heads: int, kv_heads: int, affine: bool, runtime: bool
) -> Attention:
    groups = draw(st.lists(st.integers(0, 2), min_size=heads, max_size=heads))
    cases = tuple(
        HeadCase(
            tuple(head for head in range(heads) if groups[head] == group),
            draw(masks(affine, runtime=runtime)),
        )
        for group in sorted(set(groups))
    )
    default = draw(st.integers(0, 90)) if runtime else 0
    params = (RuntimeParam(PARAM, default),) * runtime
    return Attention("random", heads, kv_heads, params, cases)


def _parameters(attention: Attention) -> str:
    parts = [
        f"{item.name}: runtime" + ("" if item.default is None else f" = {item.default}")
        for item in attention.params
    ]
    return f"({', '.join(parts)})" if parts else ""


def _one_more_than(leaf: IntExpr) -> IntExpr:
    """A divisor that is never 0, though it is no constant."""
    return _op(IntOp.ADD, Abs(leaf), Const(1))


def _window(distance: IntExpr, width: IntExpr) -> BoolExpr:
    not_ahead = Compare(CompareOp.LE, Const(0), distance)
    return All((not_ahead, Compare(CompareOp.LT, distance, width)))


def _equal(lhs: IntExpr, rhs: IntExpr) -> BoolExpr:
    return Compare(CompareOp.EQ, lhs, rhs)


def _op(op: IntOp, lhs: IntExpr, rhs: IntExpr) -> IntExpr:
    return Binary(op, lhs, rhs)


def _op_times(operand: IntExpr, factor: int) -> IntExpr:
    return Binary(IntOp.MUL, Const(factor), operand)
