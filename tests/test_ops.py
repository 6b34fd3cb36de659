"""The operators under everything that PyTorch does to one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode

import patternc
from patternc import driver
from patternc.ops.function import call
from patternc.ops.operators import attention, attention_backward
from patternc.ops.program import Site, add_program
from patternc.source import Source

TEXT = """
attention plain(recent: runtime = 5) {
    heads 4 kv 2
    mask k < q & (k < 3 | q - k < recent)
}
attention rich(recent: runtime = 5) {
    heads 4 kv 2
    input doc[k] : int
    input slope[h] : float
    input gate[h] : float
    input sinks[h] : float
    mask   k < q & doc[q] == doc[k] & q - k < recent
    score  s + slope[h] * (k - q)   for h < 3
    sink   sinks[h]                 for h in {1, 2}
    output gate[h] * o + 0.5 * v    for h >= 2
}
attention unnormalised {
    heads 4 kv 2
    mask    causal
    weights relu2(0.7)  for h < 2
    weights sigmoid(0.1) otherwise
}
"""
FLOATS = ("slope", "gate", "sinks")
SCALE = 0.4


@functools.cache
def load(name: str, backend: str = "tiled") -> patternc.Attention:
    trace = driver.trace_source(Source("ops.pat", TEXT), name)
    return patternc.Attention(trace).backend(backend)


def tensors(
    n: int = 9, batch: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = ((batch, heads, n, 4) for heads in (4, 2, 2))
    q, k, v = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return q, k, v


def floats(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(8)
    return tuple(torch.randn(4, generator=generator, dtype=dtype) / 4 for _ in FLOATS)


def rich(backend: str = "tiled") -> Callable[..., tuple[Tensor, Tensor]]:
    """`rich` as a function of tensors: q, k, v and the three floating inputs."""
    attn = load("rich", backend)

    def run(q: Tensor, k: Tensor, v: Tensor, *own: Tensor) -> tuple[Tensor, Tensor]:
        doc = torch.arange(q.shape[2]) // 5
        named: dict[str, Any] = {"doc": doc, **dict(zip(FLOATS, own, strict=True))}
        return attn(q, k, v, return_lse=True, q_offset=0, **named)

    return run


def leaves(*xs: Tensor) -> list[Tensor]:
    return [x.clone().requires_grad_() for x in xs]


# --- gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tiled", "reference"])
def test_gradients_are_those_of_finite_differences(backend: str) -> None:
    own = leaves(*(x[:1] for x in tensors(6)), *floats())

    def run(*xs: Tensor) -> tuple[Tensor, Tensor]:
        output, lse = rich(backend)(*xs)
        return output, lse.masked_fill(lse == -torch.inf, 0)

    assert torch.autograd.gradcheck(run, own, fast_mode=True)


@pytest.mark.parametrize("name", ["plain", "unnormalised"])
def test_gradients_of_programs_without_inputs(name: str) -> None:
    own = leaves(*(x[:1] for x in tensors(6)))
    assert torch.autograd.gradcheck(load(name), own, fast_mode=True)


@pytest.mark.parametrize("backend", ["tiled", "reference"])
def test_rows_without_keys_have_gradients_of_0(backend: str) -> None:
    """No key comes before the first query: `k < q`."""
    q, k, v = leaves(*tensors())
    output, lse = load("plain", backend)(q, k, v, return_lse=True)
    assert (lse[:, :, 0] == -torch.inf).all()
    torch.autograd.backward((output, lse[:, :, 1:]), (output + 1, lse[:, :, 1:] + 1))
    for x in (q, k, v):
        assert x.grad is not None
        assert x.grad.isfinite().all()
    assert q.grad is not None
    assert (q.grad[:, :, 0] == 0).all()
    assert (q.grad[:, :, 2:] != 0).any()


def test_both_backends_have_the_same_gradients() -> None:
    found = []
    for backend in ("tiled", "reference"):
        own = leaves(*tensors(), *floats())
        output, lse = rich(backend)(*own)
        loss = output.square().sum() + lse[:, :, 1:].exp().sum()
        found.append(torch.autograd.grad(loss, own))
    torch.testing.assert_close(*found)


def test_a_lse_alone_may_be_differentiated() -> None:
    q, k, v = leaves(*tensors())
    _, lse = load("plain")(q, k, v, return_lse=True)
    d_q, d_v = torch.autograd.grad(lse[:, :, 1:].sum(), (q, v))
    assert (d_q[:, :, 2:] != 0).any()
    assert (d_v == 0).all()


def test_a_second_derivative_is_refused() -> None:
    q, k, v = tensors()

    def loss(q: Tensor) -> Tensor:
        return load("plain")(q, k, v).square().sum()

    (own,) = leaves(q)
    (gradient,) = torch.autograd.grad(loss(own), own, create_graph=True)
    with pytest.raises(RuntimeError, match=r"plain\.tiled\..*differentiated once"):
        torch.autograd.grad(gradient.sum(), own)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.func.grad(lambda q: torch.func.grad(loss)(q).sum())(q)


def test_a_backend_without_gradients_refuses() -> None:
    class Forward:
        def __call__(self, q: Tensor, *_: object, **__: object) -> Tensor:
            return q.clone()

    kernel = load("plain").kernel
    name = add_program(kernel, "forward", Forward()).name
    q, k, v = tensors()
    site = Site((5,), 0, SCALE)
    assert call(q, k, v, (), name, site, False)[0].equal(q)
    with pytest.raises(patternc.PatternError, match="has no gradients"):
        call(q.requires_grad_(), k, v, (), name, site, False)


# --- torch.func ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tiled", "reference"])
def test_torch_func(backend: str) -> None:
    every = (*tensors(4, 2), *floats())

    def loss(*xs: Tensor) -> Tensor:
        output, lse = rich(backend)(*xs)
        return output.square().sum() + lse[:, :, 1:].sum()

    own = leaves(*every)
    expected = torch.autograd.grad(loss(*own), own)
    found = torch.func.grad(loss, argnums=tuple(range(6)))(*every)
    torch.testing.assert_close(found, expected)
    run = rich(backend)
    rows = torch.func.jacrev(lambda s: run(*every[:3], s, *every[4:])[0].sum((0, 2)))
    found_rows, (own_slope,) = rows(every[3]), leaves(every[3])
    output = run(*every[:3], own_slope, *every[4:])[0].sum((0, 2))
    (expected_row,) = torch.autograd.grad(output[2, 1], own_slope)
    torch.testing.assert_close(found_rows[2, 1], expected_row)


def test_vmap_folds_into_the_batch() -> None:
    q, k, v = tensors()
    own = floats()
    many, slopes = torch.stack([q, 2 * q]), torch.stack([own[0], -own[0]])
    run = torch.vmap(rich(), in_dims=(0, None, None, 0, None, None))
    output, lse = run(many, k, v, slopes, *own[1:])
    for place in range(2):
        one = rich()(many[place], k, v, slopes[place], *own[1:])
        torch.testing.assert_close((output[place], lse[place]), one)


def test_vmap_of_grad_has_a_gradient_for_each_place() -> None:
    q, k, v = tensors()
    own = floats()
    many = torch.stack([q, 2 * q], dim=1)

    def loss(*xs: Tensor) -> Tensor:
        return rich()(*xs)[0].square().sum()

    gradient = torch.func.grad(loss, argnums=(0, 1, 3, 5))
    mapped = torch.vmap(gradient, in_dims=(1, *[None] * 5))
    found = mapped(many, k, v, *own)
    for place in range(2):
        expected = gradient(many[:, place], k, v, *own)
        torch.testing.assert_close(tuple(x[place] for x in found), expected)


# --- what looks at the operators -----------------------------------------------------


@pytest.mark.parametrize("permuted", [False, True], ids=["compact", "permuted"])
def test_opcheck(permuted: bool) -> None:
    def laid_out(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous().transpose(1, 2) if permuted else x

    name = load("rich").program()
    q, k, v = leaves(*(laid_out(x) for x in tensors(5, 2, torch.float32)))
    doc = torch.arange(5)[None] // 3
    inputs = [doc, *leaves(*(x[None] for x in floats(torch.float32)))]
    told = (name, [4], 0, SCALE)
    every = (q, k, v, inputs, *told)
    for keep in (False, True):
        torch.library.opcheck(attention, (*every, True, keep))
    with torch.no_grad():
        output, lse, core, core_lse = attention(*every, True, True)
    fixed = (*(x.detach() for x in (q, k, v)), [x.detach() for x in inputs])
    for d_lse, wanted in ((torch.rand_like(lse), [1, 2, 3]), (None, [])):
        given = (laid_out(torch.rand_like(output)), d_lse, *fixed, core, core_lse)
        torch.library.opcheck(attention_backward, (*given, *told, wanted))


def test_the_operator_alone_has_gradients_too() -> None:
    """As in an exported graph, which knows no autograd function."""
    q, k, v = leaves(*tensors())
    told = (load("plain").program(), [5], 0, SCALE)
    output = attention(q, k, v, [], *told, False, False)[0]
    found = torch.autograd.grad(output.square().sum(), (q, k, v))
    direct = load("plain")(q, k, v, q_offset=0, scale=SCALE)
    expected = torch.autograd.grad(direct.square().sum(), (q, k, v))
    torch.testing.assert_close(found, expected)


def test_a_program_that_is_not_loaded_says_how() -> None:
    q, k, v = tensors()
    with pytest.raises(LookupError, match=r"patternc.load\(path, 'lost', backend='ti"):
        attention(q, k, v, [], "lost.tiled.0", [], 0, SCALE, False, False)


def test_the_name_of_a_program_is_that_of_its_kernel() -> None:
    again = driver.trace_source(Source("other.pat", "\n" + TEXT), "plain")
    assert patternc.Attention(again, "tiled").program() == load("plain").program()
    assert load("plain").schedule(block_q=32).program() != load("plain").program()
    assert load("plain", "reference").program() != load("plain").program()


# TorchDynamo itself makes an object of every autograd function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_once_for_all_lengths() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    options: dict[str, Any] = {"fullgraph": True, "dynamic": True, "backend": counter}
    compiled = torch.compile(rich(), **options)
    for n, batch in ((9, 3), (30, 5), (17, 3), (70, 6)):
        own = leaves(*tensors(n, batch, torch.float32), *floats(torch.float32))
        found, expected = compiled(*own), rich()(*own)
        torch.testing.assert_close(found, expected)
        loss, wanted = found[0].square().sum(), expected[0].square().sum()
        torch.testing.assert_close(
            torch.autograd.grad(loss, own), torch.autograd.grad(wanted, own)
        )
    assert counter.frame_count == 1


def test_compiled_once_for_all_offsets_and_parameters() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")

    attn = load("plain")

    def run(q: Tensor, k: Tensor, v: Tensor, offset: int, recent: int) -> Tensor:
        return attn(q, k, v, q_offset=offset, recent=recent)

    options: dict[str, Any] = {"fullgraph": True, "dynamic": True, "backend": counter}
    compiled = torch.compile(run, **options)
    for n, offset, recent in ((9, 3, 4), (30, 0, 9), (17, 7, 100)):
        own = (*tensors(n), offset, recent)
        torch.testing.assert_close(compiled(*own), run(*own))
    assert counter.frame_count == 1


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = load("plain")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attn(q, k, v)


def exported() -> torch.export.ExportedProgram:
    batch, n_q, n_k = (torch.export.Dim(name, max=512) for name in ("b", "n_q", "n_k"))
    axes = ({0: batch, 2: n_q}, {0: batch, 2: n_k}, {0: batch, 2: n_k})
    q, k, v = tensors(9, 3, torch.float32)
    return torch.export.export(
        Model(), (q[:, :, :7].contiguous(), k, v), dynamic_shapes=axes
    )


def test_export_with_dynamic_batch_and_lengths() -> None:
    program = exported()
    nodes = [node.target for node in program.graph.nodes]
    assert nodes.count(attention) == 1
    q, k, v = tensors(40, 5, torch.float32)
    found = program.module()(q[:, :, 20:], k, v)
    torch.testing.assert_close(found, Model()(q[:, :, 20:], k, v))


@pytest.mark.parametrize("saved", [False, True])
def test_selective_checkpointing_names_the_operator(saved: bool) -> None:
    def policy(_: object, op: object, *__: object, **___: object) -> CheckpointPolicy:
        keep = saved and op is attention
        kinds = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
        return kinds[0] if keep else kinds[1]

    contexts: Any = functools.partial(create_selective_checkpoint_contexts, policy)
    q, k, v = leaves(*tensors())
    with FlopCounterMode(display=False) as counter:
        output = checkpoint(
            load("plain"),
            q,
            k,
            v,
            use_reentrant=False,
            context_fn=contexts,
        )
        gradients = torch.autograd.grad(output.square().sum(), (q, k, v))
    expected = torch.autograd.grad(load("plain")(q, k, v).square().sum(), (q, k, v))
    torch.testing.assert_close(gradients, expected)
    flops = counter.get_flop_counts()["Global"]
    runs = flops[torch.ops.patternc.attention] // (3 * 4 * 9 * 9 * 2 * 8)
    assert runs == (1 if saved else 2)


def test_operations_are_those_of_visited_tiles() -> None:
    q, k, v = leaves(*tensors(200, 2))
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(load("plain")(q, k, v).sum())
    # Tiles of 64: four on the diagonal, three below it, and the first column's.
    rows = (64, 64, 64, 8)
    pairs = sum(r * r for r in rows) + sum(r * 64 for r in rows[1:])
    pairs += sum(r * 64 for r in rows[2:])
    flops = counter.get_flop_counts()["Global"]
    assert flops[torch.ops.patternc.attention] == 2 * 4 * pairs * 2 * 8
    assert flops[torch.ops.patternc.attention_backward] == 2 * 4 * pairs * 2 * 20


def test_autocast_narrows_what_is_multiplied() -> None:
    q, k, v = leaves(*tensors(dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, lse = load("plain")(q, k.bfloat16(), v, return_lse=True)
        assert load("plain")(*tensors()).dtype == torch.float64
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    expected = load("plain")(*(x.bfloat16() for x in (q, k, v)))
    torch.testing.assert_close(output, expected)
    (gradient,) = torch.autograd.grad(output.sum(), q)
    assert gradient.dtype == torch.float32
