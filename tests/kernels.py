"""Small attentions, written as IR, for the tests of backends.

In: numbers. Out: planned kernels. Not its job: random ones (`tests.strategies`) and
the path from text (`patternc.driver`).
"""

from __future__ import annotations

from patternc.ir.nodes import (
    HEAD,
    KEY,
    QUERY,
    All,
    Any,
    Attention,
    Binary,
    BoolExpr,
    Compare,
    CompareOp,
    Const,
    HeadCase,
    IntExpr,
    IntOp,
    RuntimeParam,
)
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan

SMALL = Schedule(block_q=16, block_k=16)
BACK = Binary(IntOp.SUB, QUERY, KEY)
CAUSAL = Compare(CompareOp.LE, KEY, QUERY)


def window(width: int | IntExpr) -> BoolExpr:
    """`0 <= q - k < width`."""
    end = Const(width) if isinstance(width, int) else width
    return All(
        (Compare(CompareOp.LE, Const(0), BACK), Compare(CompareOp.LT, BACK, end))
    )


def streaming(sink: int, width: int) -> BoolExpr:
    """`causal & (k < sink | window(width))`."""
    return All((CAUSAL, Any((Compare(CompareOp.LT, KEY, Const(sink)), window(width)))))


def per_head(modulus: int) -> BoolExpr:
    """`causal & (k + h) % modulus == 0`: another set of keys for each head."""
    place = Binary(IntOp.MOD, Binary(IntOp.ADD, KEY, HEAD), Const(modulus))
    return All((CAUSAL, Compare(CompareOp.EQ, place, Const(0))))


def attention_of(
    mask: BoolExpr, heads: int = 2, kv: int = 1, params: tuple[RuntimeParam, ...] = ()
) -> Attention:
    """One mask for all heads."""
    case = HeadCase(tuple(range(heads)), mask)
    return Attention("example", heads, kv, params, (case,))


def kernel_of(
    mask: BoolExpr, heads: int = 2, kv: int = 1, schedule: Schedule = SMALL
) -> Kernel:
    """A planned kernel with one mask for all heads."""
    return plan(attention_of(mask, heads, kv), schedule)


def two_groups() -> Kernel:
    """Heads 0 and 3 see a window, 1 and 2 stream; two to each key/value head."""
    cases = (HeadCase((0, 3), window(5)), HeadCase((1, 2), streaming(3, 20)))
    return plan(Attention("example", 4, 2, (), cases), SMALL)
