"""`patternc.sdpa` and `patternc.nn.Attention`: a pattern where PyTorch has a mask."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

import patternc
from patternc.functional import compile_pattern

EXPRESSION = "causal & (k < 3 | q - k < 6)"
COUNTED = """
attention counted(H, G, w = 4) {
    heads H kv G
    input sinks[h] : float
    mask  causal & window(w)
    sink  sinks[h]
}
"""


def tensors(heads: int = 6, kv: int = 2, n: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = ((2, count, n, 8) for count in (heads, kv, kv))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize(("heads", "kv"), [(6, 2), (4, 4), (1, 1)])
def test_an_expression_takes_the_heads_of_the_tensors(heads: int, kv: int) -> None:
    q, k, v = tensors(heads, kv)
    back = torch.arange(20)[:, None] - torch.arange(20)
    mask = (back >= 0) & ((torch.arange(20) < 3) | (back < 6))
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, enable_gqa=True
    )
    found = patternc.sdpa(q, k, v, EXPRESSION)
    torch.testing.assert_close(found, expected)
    scaled = patternc.sdpa(q, k, v, EXPRESSION, 0.1, True)
    assert isinstance(scaled, tuple)
    torch.testing.assert_close(scaled[0], patternc.sdpa(q, k, v, EXPRESSION, 0.1))
    assert not torch.allclose(scaled[0], expected)


def test_text_paths_and_attentions_are_patterns(tmp_path: Path) -> None:
    path = tmp_path / "counted.pat"
    path.write_text(COUNTED)
    q, k, v = tensors()
    sinks = torch.randn(6)
    found = [
        patternc.sdpa(q, k, v, pattern, w=3, sinks=sinks)
        for pattern in (COUNTED, path, str(path))
    ]
    loaded = patternc.load(path, H=6, G=2, w=3)
    for one in (*found, patternc.sdpa(q, k, v, loaded, sinks=sinks)):
        torch.testing.assert_close(one, loaded(q, k, v, sinks=sinks))
    other = patternc.sdpa(q, k, v, COUNTED, sinks=sinks)
    assert not torch.allclose(torch.as_tensor(other), torch.as_tensor(found[0]))


def test_a_text_is_compiled_once_for_each_number_of_heads() -> None:
    assert compile_pattern(COUNTED, 6, 2) is compile_pattern(COUNTED, 6, 2)
    assert compile_pattern(COUNTED, 6, 2) is not compile_pattern(COUNTED, 4, 2)
    assert compile_pattern(COUNTED, 6, 2) is not compile_pattern(COUNTED, 6, 2, w=9)


def test_head_counts_that_are_written_must_agree() -> None:
    q, k, v = tensors()
    with pytest.raises(ValueError, match=r"`q`: expected \[B, 8, n_q, D\].*6 heads"):
        patternc.sdpa(q, k, v, "attention a { heads 8 mask causal }")
    with pytest.raises(patternc.PatternError, match="unknown"):
        patternc.sdpa(q, k, v, "causl")
    with pytest.raises(ValueError, match="how many `heads`"):
        compile_pattern("causal")
    with pytest.raises(TypeError, match="`z` is not a static parameter"):
        compile_pattern("causal", 2, z=1)
    with pytest.raises(TypeError, match="`size` is not a run-time parameter"):
        patternc.sdpa(q, k, v, EXPRESSION, size=3)


def test_a_module_learns_inputs() -> None:
    module = patternc.nn.Attention(
        COUNTED, 6, 2, learned={"sinks": torch.zeros(6)}, w=3
    )
    assert [name for name, _ in module.named_parameters()] == ["learned.sinks"]
    q, k, v = tensors()
    torch.autograd.backward(module(q, k, v).square().sum())
    gradient = module.learned["sinks"].grad
    assert gradient is not None
    assert (gradient != 0).all()
    with pytest.raises(TypeError, match="`sinks` is learned"):
        module(q, k, v, sinks=torch.zeros(6))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_module_can_be_copied_pickled_and_saved(compiled: bool) -> None:
    pattern = compile_pattern(COUNTED, 6, 2) if compiled else COUNTED
    module = patternc.nn.Attention(pattern, 6, 2, learned={"sinks": torch.randn(6)})
    q, k, v = tensors()
    expected = module(q, k, v)
    pickled = pickle.loads(pickle.dumps(module))
    for other in (copy.deepcopy(module), pickled):
        torch.testing.assert_close(other(q, k, v), expected)
    fresh = patternc.nn.Attention(pattern, 6, 2, learned={"sinks": torch.zeros(6)})
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer))
    torch.testing.assert_close(fresh(q, k, v), expected)
    assert "counted" in repr(module)


def test_a_loaded_attention_can_be_copied_and_pickled() -> None:
    attn = compile_pattern(EXPRESSION, 6, 2)
    q, k, v = tensors()
    again = pickle.loads(pickle.dumps(attn))
    torch.testing.assert_close(again(q, k, v), attn(q, k, v))
    assert again.program() == attn.program()
    assert copy.deepcopy(attn) is attn


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_module_compiles_whole(dynamic: bool | None) -> None:
    module = patternc.nn.Attention(EXPRESSION, 6, 2)
    torch._dynamo.reset()
    run = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n in (20, 33):
        own = tensors(n=n)
        torch.testing.assert_close(run(*own), module(*own))
