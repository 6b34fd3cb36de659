"""The IR as text, for `explain` and for debugging.

In: an expression or an attention. Out: text in the language's own notation, with as
few brackets as precedence allows. Not its job: text for a target language (backends
have printers of their own).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Attention,
    AxesOrder,
    AxisKind,
    Binary,
    Compare,
    Const,
    CurveOrder,
    Expr,
    FloatBinary,
    FloatCall,
    FloatConst,
    FloatExpr,
    FloatFunction,
    FloatOp,
    FloatRead,
    FloatSelect,
    FromInt,
    GivenValue,
    Index,
    Input,
    InputAxis,
    IntOp,
    LabelOrder,
    Layout,
    Not,
    OrderCase,
    Param,
    PhaseOrder,
    Read,
    TileOrder,
    Truth,
    WeightKind,
)

_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _ATOM = range(7)

_PRECEDENCE = {
    IntOp.ADD: _SUM,
    IntOp.SUB: _SUM,
    IntOp.MUL: _PRODUCT,
    IntOp.FLOORDIV: _PRODUCT,
    IntOp.MOD: _PRODUCT,
}


def print_expr(expr: Expr) -> str:
    """An expression in the language's notation."""
    return _print(expr, _OR)


def print_float(expr: FloatExpr) -> str:
    """A score, sink or output in the language's notation."""
    return _print_float(expr, _OR)


def print_attention(attention: Attention) -> str:
    """An attention with every clause but its asserts, each with its heads."""
    lines = [f"attention {attention.name} {{"]
    lines.append(f"    heads {attention.heads} kv {attention.kv_heads}")
    tables = {selection.table for selection in attention.selections}
    for param in attention.params:
        default = "" if param.default is None else f" = {param.default}"
        lines.append(f"    runtime {param.name}{default}")
    if attention.layout is not None:
        lines.append(f"    layout {print_layout(attention.layout)}")
    lines += [
        f"    input {print_input(table)}"
        if table.name not in tables
        else f"    table {print_input(table)}"
        for table in attention.inputs
    ]
    for words, heads in _clauses(attention):
        lines.append(f"    {words}  for h in {print_heads(heads)}")
    if attention.skipped:
        lines.append(f"    skip  for h in {print_heads(attention.skipped)}")
    if attention.schedule is not None:
        given = attention.schedule.given.items()
        settings = ", ".join(f"{name} = {value}" for name, value in given)
        lines.append(f"    schedule {{ {settings} }}")
    return "\n".join([*lines, "}"])


def _clauses(attention: Attention) -> Iterator[tuple[str, Sequence[int]]]:
    """What is said of some heads, and those heads."""
    skipped = frozenset(attention.skipped)
    for mask in attention.cases:
        heads = [head for head in mask.heads if head not in skipped]
        if heads:
            yield f"mask  {print_expr(mask.mask)}", heads
    for order in attention.orders:
        yield f"order {print_order(order, attention.layout)}", order.heads
    for score in attention.scores:
        yield f"score {print_float(score.score)}", score.heads
    for weights in attention.weights:
        argument = f"({weights.argument!r})"
        shown = "" if weights.kind is WeightKind.SOFTMAX else argument
        yield f"weights {weights.kind.value}{shown}", weights.heads
    for sink in attention.sinks:
        yield f"sink  {print_float(sink.logit)}", sink.heads
    for output in attention.outputs:
        yield f"output {print_float(output.output)}", output.heads


def print_layout(layout: Layout) -> str:
    """`name = text[226] + video[f = 13, y = 30, x = 45]`."""
    parts = []
    for segment in layout.segments:
        sizes = [f"{name} = {size}" for name, size in segment.axes]
        inside = sizes or [str(segment.size)]
        valid = [f"valid = {segment.valid}"] if segment.valid else []
        parts.append(f"{segment.name}[{', '.join([*inside, *valid])}]")
    return f"{layout.name} = {' + '.join(parts)}"


def print_input(table: Input) -> str:
    """`doc[k] : int sorted`."""
    axes = ", ".join(_axis(axis) for axis in table.axes)
    shape = f"[{axes}]" if axes else ""
    promise = " sorted" if table.is_sorted else ""
    return f"{table.name}{shape} : {table.element.value}{promise}"


def _axis(axis: InputAxis) -> str:
    if axis.kind is AxisKind.SIZE:
        return str(axis.size)
    shifted = f" - {axis.shift}" if axis.shift else ""
    position = f"{axis.kind.value}{shifted}"
    if axis.divisor == 1:
        return position
    return (
        f"({position}) // {axis.divisor}"
        if shifted
        else (f"{position} // {axis.divisor}")
    )


def print_order(case: OrderCase, layout: Layout | None) -> str:
    """`video by tile(f = 6, y = 8, x = 8)`."""
    order = case.order
    match order:
        case AxesOrder():
            how = f"axes({', '.join(order.axes)})"
        case TileOrder():
            segments = () if layout is None else layout.segments
            axes = next(one.axes for one in segments if one.name == case.segment)
            sizes = zip(axes, order.sizes, strict=True)
            how = f"tile({', '.join(f'{name} = {size}' for (name, _), size in sizes)})"
        case PhaseOrder():
            how = f"phase({order.stride})"
        case CurveOrder():
            how = f"curve({order.curve.value})"
        case LabelOrder():
            how = f"labels({order.table})"
        case _:
            assert_never(order)
    return f"{case.segment or 'all'} by {how}"


def print_heads(heads: Sequence[int]) -> str:
    """A set of heads, consecutive ones as `a..b`: `{0..3, 12..15}`."""
    runs: list[list[int]] = []
    for head in sorted(heads):
        if runs and runs[-1][1] == head - 1:
            runs[-1][1] = head
        else:
            runs.append([head, head])
    parts = [f"{lo}" if lo == hi else f"{lo}..{hi}" for lo, hi in runs]
    return "{" + ", ".join(parts) + "}"


def _print(expr: Expr, outer: int) -> str:
    text, inner = _text_and_precedence(expr)
    return f"({text})" if inner < outer else text


def _text_and_precedence(expr: Expr) -> tuple[str, int]:
    match expr:
        case Const():
            return str(expr.value), _ATOM if expr.value >= 0 else _PRODUCT
        case Index():
            return expr.axis.value, _ATOM
        case Param():
            return expr.name, _ATOM
        case Abs():
            return f"abs({_print(expr.operand, _OR)})", _ATOM
        case Read():
            indices = ", ".join(_print(index, _OR) for index in expr.indices)
            return f"{expr.table}[{indices}]" if indices else expr.table, _ATOM
        case Binary(op=IntOp.MIN | IntOp.MAX):
            arguments = f"{_print(expr.lhs, _OR)}, {_print(expr.rhs, _OR)}"
            return f"{expr.op.value}({arguments})", _ATOM
        case Binary():
            level = _PRECEDENCE[expr.op]
            if expr.op is IntOp.SUB and expr.lhs == Const(0):
                return f"-{_print(expr.rhs, _ATOM)}", _PRODUCT
            lhs, rhs = _print(expr.lhs, level), _print(expr.rhs, level + 1)
            return f"{lhs} {expr.op.value} {rhs}", level
        case Truth():
            return "full" if expr.value else "empty", _ATOM
        case Compare():
            lhs, rhs = _print(expr.lhs, _SUM), _print(expr.rhs, _SUM)
            return f"{lhs} {expr.op.value} {rhs}", _COMPARE
        case Not():
            return f"~{_print(expr.term, _ATOM)}", _NOT
        case All():
            return _join(" & ", expr.terms, _AND, "full")
        case Any():
            return _join(" | ", expr.terms, _OR, "empty")
        case _:
            assert_never(expr)


def _join(sign: str, terms: Sequence[Expr], level: int, none: str) -> tuple[str, int]:
    if not terms:
        return none, _ATOM
    if len(terms) == 1:
        return _text_and_precedence(terms[0])
    return sign.join(_print(term, level + 1) for term in terms), level


_FLOAT_PRECEDENCE = {
    FloatOp.ADD: _SUM,
    FloatOp.SUB: _SUM,
    FloatOp.MUL: _PRODUCT,
    FloatOp.DIV: _PRODUCT,
}


def _print_float(expr: FloatExpr, outer: int) -> str:
    text, inner = _float_text_and_precedence(expr)
    return f"({text})" if inner < outer else text


def _float_text_and_precedence(expr: FloatExpr) -> tuple[str, int]:
    match expr:
        case FloatConst():
            return repr(expr.value), _ATOM if expr.value >= 0 else _PRODUCT
        case GivenValue():
            return expr.which.value, _ATOM
        case FromInt():
            return _text_and_precedence(expr.operand)
        case FloatRead():
            return _text_and_precedence(Read(expr.table, expr.indices))
        case FloatBinary(op=FloatOp.MIN | FloatOp.MAX):
            lhs, rhs = print_float(expr.lhs), print_float(expr.rhs)
            return f"{expr.op.value}({lhs}, {rhs})", _ATOM
        case FloatBinary():
            level = _FLOAT_PRECEDENCE[expr.op]
            lhs, rhs = _print_float(expr.lhs, level), _print_float(expr.rhs, level + 1)
            return f"{lhs} {expr.op.value} {rhs}", level
        case FloatCall(function=FloatFunction.NEGATE):
            return f"-{_print_float(expr.operand, _ATOM)}", _PRODUCT
        case FloatCall():
            return f"{expr.function.value}({print_float(expr.operand)})", _ATOM
        case FloatSelect():
            condition = print_expr(expr.condition)
            then, otherwise = print_float(expr.then), print_float(expr.otherwise)
            return f"where({condition}, {then}, {otherwise})", _ATOM
        case _:
            assert_never(expr)
