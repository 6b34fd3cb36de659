"""Plans under torch.compile and torch.func, and the operator's own checks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from patternc.attention import Attention
from tests.selection.programs import attention

CLAUSES = """let probe = softmax(scores where causal for q >= N - 4)
    let columns = top(3, sum(probe by k), always k == 0)
    let slashes = top_p(0.8, sum(probe by q - k))
    mask causal & (k in columns | q - k in slashes)"""


@pytest.fixture
def attn(tmp_path: Path) -> Attention:
    return attention(tmp_path, CLAUSES, "heads 4 kv 2").backend("reference")


def drawn(*front: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((*front, 2, 4, 12, 8), (*front, 2, 2, 16, 8), (*front, 2, 2, 16, 8))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


def test_the_operator_passes_the_checks_of_pytorch(attn: Attention) -> None:
    q, k, _ = drawn()
    none: list[Tensor] = []
    arguments: tuple[object, ...] = (q, k, none, attn.program("cpu"), [], 4, 0.5)
    torch.library.opcheck(torch.ops.patternc.plan.default, arguments)


def test_a_mapped_axis_is_a_part_of_the_batch(attn: Attention) -> None:
    q, k, v = drawn(3)
    mapped = torch.func.vmap(lambda *x: attn(*x))(q, k, v)
    alone = [attn(*(x[at] for x in (q, k, v))) for at in range(3)]
    torch.testing.assert_close(mapped, torch.stack(alone))


def test_a_compiled_call_plans_and_attends(attn: Attention) -> None:
    q, k, v = drawn()
    compiled = torch.compile(lambda *x: attn(*x), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), attn(q, k, v))


def test_a_compiled_call_may_be_dense(tmp_path: Path) -> None:
    attn = attention(tmp_path, f"{CLAUSES} else dense when cheaper", "heads 4 kv 2")
    attn = attn.backend("reference")
    attn.dense()  # compiled before it is traced
    q, k, v = drawn()
    compiled = torch.compile(lambda *x: attn(*x), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), attn.dense()(q, k, v))
