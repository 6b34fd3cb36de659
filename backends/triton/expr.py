"""IR expressions as Triton and PyTorch text.

In: an expression and what the names in it are called in the target language. Out: the
text of an expression, or assignments of at most 88 columns. Not its job: where the
text goes (`emit`), text in the language's own notation (`ir.text`).

The Triton text divides like Python for negative operands too, without paying for it
where the bounds of an operand allow: a power of two is a shift or a mask, an operand
that is never negative is divided plainly, the rest calls `floor_div` or `floor_mod`,
which the generated module then defines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from patternc.analysis.interval import Bounds, Box, bounds_of, python_bounds
from patternc.ir.evaluate import Point, evaluate, evaluate_int
from patternc.ir.nodes import (
    Abs,
    All,
    Any,
    Axis,
    Binary,
    Compare,
    Const,
    Expr,
    Index,
    IntExpr,
    IntOp,
    Not,
    Param,
    Read,
    Truth,
)
from patternc.ir.walk import children, rewrite, subexpressions

LIMIT = 2**30
"""The greatest position, length and run-time parameter; calls beyond it are refused."""

COLUMNS = 88

# Python's precedences; comparisons are always bracketed below `&` and `|`.
_COMPARE, _OR, _AND, _SHIFT, _SUM, _PRODUCT, _UNARY, _ATOM = range(8)

_LEVEL = {
    IntOp.ADD: _SUM,
    IntOp.SUB: _SUM,
    IntOp.MUL: _PRODUCT,
    IntOp.FLOORDIV: _PRODUCT,
    IntOp.MOD: _PRODUCT,
}

Text = tuple[str, int]


@dataclass(frozen=True)
class Printer:
    """Triton text: `names` calls the axes, `param` is a format for parameters.

    `box` bounds what the names can be. `wide` names are used where int32 could
    overflow. `hoisted` holds what has been assigned to a variable already, `reads` the
    variables that hold elements of inputs.
    """

    names: Mapping[Axis, str]
    box: Box
    param: str = "p_{}"
    widen: str = "{}.to(tl.int64)"
    hoisted: Mapping[Expr, str] = field(default_factory=dict)
    reads: Mapping[Expr, str] = field(default_factory=dict)

    def print(self, expr: Expr) -> str:
        """The text of an expression, in 64 bits only if 32 are not enough."""
        expr = folded(expr)
        return self._text(expr, needs_64_bits(expr, self.box))[0]

    def assign(self, target: str, expr: Expr, indent: int) -> list[str]:
        """Lines that assign `expr` to `target`, none longer than 88 columns.

        Subexpressions that do not fit are assigned to `target_1`, ... first.
        """
        expr = folded(expr)
        lines: list[str] = []
        names: dict[Expr, str] = {}
        wide = needs_64_bits(expr, self.box)
        while True:
            printer = replace(self, hoisted={**self.hoisted, **names})
            line = f"{target} = {printer._text(expr, wide)[0]}"
            part = None
            if indent + len(line) > COLUMNS:
                part = printer._hoistable(expr, wide, indent + len(target) + 8)
            if part is None:
                return [*lines, line]
            name = f"{target}_{len(names) + 1}"
            lines.append(f"{name} = {printer._text(part, wide)[0]}")
            names[part] = name

    def _hoistable(self, expr: Expr, wide: bool, used: int) -> Expr | None:
        """The longest proper subexpression that fits on a line of its own."""
        best, longest = None, 12
        for part in self._parts(expr):
            size = len(self._text(part, wide)[0])
            if part != expr and longest < size <= COLUMNS - used:
                best, longest = part, size
        return best

    def _parts(self, expr: Expr) -> Iterator[Expr]:
        """The subexpressions that have a text of their own."""
        return subexpressions(expr)

    def _in(self, expr: Expr, wide: bool, outer: int) -> str:
        text, inner = self._text(expr, wide)
        return f"({text})" if inner < outer else text

    def _text(self, expr: Expr, wide: bool) -> Text:
        if expr in self.hoisted:
            return self.hoisted[expr], _ATOM
        match expr:
            case Const():
                return str(expr.value), _ATOM if expr.value >= 0 else _UNARY
            case Index():
                return self._name(self.names[expr.axis], wide)
            case Param():
                return self._name(self.param.format(expr.name), wide)
            case Binary():
                return self._binary(expr, wide)
            case Abs():
                return self._call("abs", wide, expr.operand)
            case Read():
                return self._read(expr, wide)
            case Truth():
                return self._truth(expr.value)
            case Compare():
                # Only sums and products stand bare beside a comparison: Python binds
                # `x & 7 == 0` as one would not read it.
                lhs = self._in(expr.lhs, wide, _SUM)
                rhs = self._in(expr.rhs, wide, _SUM)
                return f"{lhs} {expr.op.value} {rhs}", _COMPARE
            case Not():
                return f"~{self._in(expr.term, wide, _ATOM)}", _UNARY
            case All(terms=()) | Any(terms=()):
                return self._truth(isinstance(expr, All))
            case All(terms=(only,)) | Any(terms=(only,)):
                return self._text(only, wide)
            case All():
                terms = [self._in(term, wide, _AND) for term in expr.terms]
                return " & ".join(terms), _AND
            case Any():
                terms = [self._in(term, wide, _OR) for term in expr.terms]
                return " | ".join(terms), _OR
            case _:
                assert_never(expr)

    def _read(self, expr: Read, wide: bool) -> Text:
        return self._name(self.reads[expr], wide)

    def _name(self, name: str, wide: bool) -> Text:
        return (self.widen.format(name) if wide else name), _ATOM

    def _binary(self, expr: Binary, wide: bool) -> Text:
        match expr.op:
            case IntOp.MIN | IntOp.MAX:
                name = "minimum" if expr.op is IntOp.MIN else "maximum"
                return self._call(name, wide, expr.lhs, expr.rhs)
            case IntOp.FLOORDIV | IntOp.MOD:
                return self._divide(expr, wide)
            case IntOp.ADD | IntOp.SUB | IntOp.MUL:
                return self._infix(expr, wide)
            case _:
                assert_never(expr.op)

    def _infix(self, expr: Binary, wide: bool) -> Text:
        op, rhs = expr.op, expr.rhs
        if op is IntOp.ADD and isinstance(rhs, Const) and rhs.value < 0:
            op, rhs = IntOp.SUB, Const(-rhs.value)
        level = _LEVEL[op]
        left, right = self._in(expr.lhs, wide, level), self._in(rhs, wide, level + 1)
        return f"{left} {op.value} {right}", level

    def _divide(self, expr: Binary, wide: bool) -> Text:
        is_mod = expr.op is IntOp.MOD
        divisor = expr.rhs.value if isinstance(expr.rhs, Const) else 0
        if divisor > 0 and divisor & (divisor - 1) == 0:
            if is_mod:
                return f"{self._in(expr.lhs, wide, _SHIFT)} & {divisor - 1}", _AND
            shift = divisor.bit_length() - 1
            return f"{self._in(expr.lhs, wide, _PRODUCT)} >> {shift}", _SHIFT
        positive = divisor > 0 or _bounds(expr.rhs, self.box).lo > 0
        if positive and _bounds(expr.lhs, self.box).lo >= 0:
            return self._infix(expr, wide)
        name = "floor_mod" if is_mod else "floor_div"
        lhs, rhs = (
            self._in(expr.lhs, wide, _COMPARE),
            self._in(expr.rhs, wide, _COMPARE),
        )
        return f"{name}({lhs}, {rhs})", _ATOM

    def _call(self, name: str, wide: bool, *arguments: IntExpr) -> Text:
        inner = ", ".join(self._in(item, wide, _COMPARE) for item in arguments)
        return f"tl.{name}({inner})", _ATOM

    def _truth(self, value: bool) -> Text:
        # A comparison, not a literal: it must be a value of the device.
        return f"{self.names[Axis.HEAD]} {'>=' if value else '<'} 0", _COMPARE


@dataclass(frozen=True)
class TorchPrinter(Printer):
    """PyTorch text: every name is an int64 tensor, so that nothing is special."""

    widen: str = "{}"

    def _read(self, expr: Read, wide: bool) -> Text:
        places = [self._in(index, wide, _COMPARE) for index in expr.indices]
        return f"read({', '.join([f't_{expr.table}', 'b', *places])})", _ATOM

    def _divide(self, expr: Binary, wide: bool) -> Text:
        return self._infix(expr, wide)  # of tensors, PyTorch's are Python's

    def _call(self, name: str, wide: bool, *arguments: IntExpr) -> Text:
        texts = [self._in(item, wide, _COMPARE) for item in arguments]
        if name == "abs":
            return f"torch.abs({texts[0]})", _ATOM
        # `clamp` takes a number, `minimum` takes tensors only.
        bound = "max" if name == "minimum" else "min"
        for at, other in ((1, 0), (0, 1)):
            if isinstance(arguments[at], Const):
                return f"torch.clamp({texts[other]}, {bound}={texts[at]})", _ATOM
        return f"torch.{name}({texts[0]}, {texts[1]})", _ATOM


@dataclass(frozen=True)
class PythonPrinter(Printer):
    """Python text: every name is an integer."""

    widen: str = "{}"

    def _text(self, expr: Expr, wide: bool) -> Text:
        if isinstance(expr, Not) and expr not in self.hoisted:
            return f"(not {self._in(expr.term, wide, _COMPARE)})", _ATOM
        return super()._text(expr, wide)

    def _divide(self, expr: Binary, wide: bool) -> Text:
        return self._infix(expr, wide)

    def _call(self, name: str, wide: bool, *arguments: IntExpr) -> Text:
        inner = ", ".join(self._in(item, wide, _COMPARE) for item in arguments)
        return f"{name.removesuffix('imum')}({inner})", _ATOM


def kernel_box(
    heads: int, block_q: int, block_k: int, params: frozenset[str] | tuple[str, ...]
) -> Box:
    """What the names of a kernel can be, as Python integers.

    Elements of inputs have 32 bits: the text computes with them in 32 bits where no
    more can come of it, and in 64 where a table holds 64 itself.
    """
    axes = {
        Axis.QUERY: python_bounds(-LIMIT, LIMIT),
        Axis.KEY: python_bounds(0, LIMIT),
        Axis.HEAD: python_bounds(0, heads - 1),
        Axis.LENGTH: python_bounds(0, LIMIT),
        Axis.QUERY_TILE: python_bounds(-(LIMIT // block_q) - 1, LIMIT // block_q),
        Axis.KEY_TILE: python_bounds(0, LIMIT // block_k),
    }
    elements = python_bounds(-(2**31), 2**31 - 1)
    values = {name: python_bounds(-LIMIT, LIMIT) for name in params}
    return Box(axes, values, lambda read, indices: elements)


def needs_64_bits(expr: Expr, box: Box) -> bool:
    """Whether an intermediate value of `expr` may leave the range of int32."""
    for part in subexpressions(expr):
        match part:
            case Const() | Index() | Param() | Binary() | Abs() | Read():
                bounds = _bounds(part, box)
                if bounds.lo < -(2**31) or bounds.hi >= 2**31:
                    return True
            case Truth() | Compare() | All() | Any() | Not():
                continue
            case _:
                assert_never(part)
    return False


def folded(expr: Expr) -> Expr:
    """`expr` with every operation on numbers alone replaced by its value.

    The target languages would see plain Python numbers there, on which `~`, for one,
    means something else.
    """
    return rewrite(expr, _fold)


def _fold(node: Expr) -> Expr:
    parts = children(node)
    if not parts or not all(isinstance(part, Const | Truth) for part in parts):
        return node
    match node:
        case Binary() | Abs():
            return Const(int(evaluate_int(node, Point({}))), node.span)
        case Compare() | All() | Any() | Not():
            return Truth(bool(evaluate(node, Point({}))), node.span)
        case Const() | Index() | Param() | Read() | Truth():
            return node
        case _:
            assert_never(node)


def calls_floor_helpers(text: str) -> bool:
    """Whether Triton text calls `floor_div` or `floor_mod`."""
    return "floor_div(" in text or "floor_mod(" in text


def _bounds(expr: IntExpr, box: Box) -> Bounds:
    """Bounds of `expr`; of a quotient whose divisor may be 0, the widest ones."""
    for part in subexpressions(expr):
        if isinstance(part, Binary) and part.op in (IntOp.FLOORDIV, IntOp.MOD):
            divisor = bounds_of(part.rhs, box)
            if divisor.lo <= 0 <= divisor.hi:
                return python_bounds(-(2**63), 2**63 - 1)
    return bounds_of(expr, box)
