"""Selections wait for nothing: plan, lists of tiles, forward and backward pass.

A host that waits for the device has asked it for a number: `item`, `nonzero`, a mask as
an index, a number copied to it. `Refuses` is an error at each of them. Kernels run in
the interpreter, which is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime import interpreter

from patternc.attention import Attention
from patternc.backends import planner as definition
from patternc.backends.triton import planner
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import TritonBackend
from patternc.driver import trace_source
from patternc.plan.kernel import Schedule
from patternc.source import Source
from patternc.store import Store
from tests.formatting import assert_formatted

SMALL = Schedule(block_q=16, block_k=16, warps=4, stages=2)
WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "nonzero_static",
    "masked_select",
    "_unique2",
    "unique_dim",
    "equal",
    "is_nonzero",
    "lift_fresh",
)
"""Operations that ask a device for numbers, and the last, which brings one to it."""

PROGRAMS = {
    "moba": """let gate = Q @ mean(K by k // 8) where k // 8 <= q // 8
        let chosen = top(min(2, (N + 7) // 8), gate per q, always k // 8 == q // 8)
        mask causal & (q, k // 8) in chosen""",
    "vmoba": """let gate = Q @ mean(K by k // 4 % 5)
        let chosen = top_p(
            0.3, (gate - min(gate)) / (max(gate) - min(gate)),
            always k // 4 % 5 == q // 4 % 5
        )
        mask (q, k // 4 % 5) in chosen""",
    "shared": """let gate = Q @ mean(K by k // 4) where k // 4 <= q // 4
        let chosen = top(2, gate per q over g)
        mask causal & ((q, k // 4) in chosen | q - k < 3)""",
    "scored": """let probe = softmax(scores where causal for q >= N - 9)
        let columns = top(9, sum(probe by k))
        let slashes = top(7, sum(probe by q - k), always q - k < 2)
        mask causal & (k in columns | q - k in slashes)
        score softcap(s, 3.0)""",
    "some_heads": """let gate = Q @ mean(K by k // 4)
        let chosen = top(3, gate per q)
        mask (q, k // 4) in chosen   for h < 2
        mask causal                  otherwise""",
    "in_order": """layout clip
        let gate = Q @ mean(K by k // 8)
        let chosen = top(3, gate per q, always k // 8 == 0)
        mask (q, k // 8) in chosen
        order video by tile(y = 2, x = 4)""",
}
SIZES = dict.fromkeys(PROGRAMS, (21, 35)) | {"in_order": (37, 37)}


class Refuses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """An error at every operation that waits."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS or (name == "repeat_interleave" and len(args) == 1):
            raise AssertionError(f"{func} waits for the device")
        places = args[1] if name in ("index", "index_put", "index_put_") else ()
        if any(x is not None and x.dtype == torch.bool for x in places):
            raise AssertionError(f"{func} of a mask waits for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    launch = interpreter.GridExecutor.__call__

    def outside(*args: Any, **named: Any) -> Any:
        with _disable_current_modes():
            return launch(*args, **named)

    with monkeypatch.context() as patched, Refuses():  # type: ignore[no-untyped-call]
        patched.setattr(interpreter.GridExecutor, "__call__", outside)
        yield


def loaded(name: str) -> Attention:
    head = "layout clip = text[5] + video[y = 4, x = 8]\n" if name == "in_order" else ""
    text = f"{head}attention chosen {{\nheads 4 kv 2\n{PROGRAMS[name]}\n}}\n"
    trace = trace_source(Source("chosen.pat", text), schedule=SMALL)
    return Attention(trace).backend("triton")


def tensors(name: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    n_q, n_k = SIZES[name]
    batch = 2 if name == "some_heads" else 1
    shapes = [(batch, heads, n, 16) for heads, n in ((4, n_q), (2, n_k), (2, n_k))]
    return [torch.randn(x, generator=generator) for x in shapes]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_training_step_waits_for_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives what dense attention under the chosen mask gives."""
    attention = loaded(name)
    kernel = attention.kernel
    module = TritonBackend(Store(tmp_path)).load(kernel)
    q, k, v = tensors(name)
    n_q, n_k = SIZES[name]
    call: dict[str, Any] = {"scale": 0.25, "q_offset": n_k - n_q, "params": {}}
    d_out = torch.randn(q.shape, generator=torch.Generator().manual_seed(3))
    plan = attention.plan(q, k)
    with no_waiting(monkeypatch):
        tables = definition.plan_tables(kernel.attention, q, k, inputs={}, **call)
    known = {one.name: plan.places[one.name] for one in kernel.attention.params}
    with no_waiting(monkeypatch):
        more = {**call, "params": known, "inputs": tables}
        out, lse = module.attend(q, k, v, **more)
        found = module.gradients(q, k, v, out, lse, d_out, None, **more)[:3]
    seen = attention.mask(n_q, n_k, plan=plan)
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    exact = dense(name, wide, seen)
    wanted = torch.autograd.grad(exact, wide, d_out.double())
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["moba", "vmoba", "scored"])
def test_planning_by_kernels_waits_for_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = loaded(name).kernel
    module = TritonBackend(Store(tmp_path)).load(kernel)
    q, k, _ = (x[:1, :, -9:] for x in tensors(name))
    call: dict[str, Any] = {"scale": 0.25, "q_offset": 0, "params": {}, "inputs": {}}
    with no_waiting(monkeypatch):
        found = planner.plan_tables(
            module.module, module.fused, kernel.attention, q, k, **call
        )
    wanted = definition.plan_tables(kernel.attention, q, k, **call)
    assert all(torch.equal(found[table], values) for table, values in wanted.items())


def test_lists_that_follow_inputs_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So `Refuses` sees it where it happens."""
    text = "attention x {\nheads 1\ninput doc[k] : int\nmask doc[q] == doc[k]\n}\n"
    kernel = trace_source(Source("x.pat", text), schedule=SMALL).kernel
    module = TritonBackend(Store(tmp_path)).load(kernel)
    q = torch.zeros(1, 1, 40, 16)
    inputs = {"doc": torch.arange(40)[None] // 9}
    call: dict[str, Any] = {"scale": 1.0, "q_offset": 0, "params": {}}
    with no_waiting(monkeypatch), pytest.raises(AssertionError, match="waits for"):
        module.attend(q, q, q, inputs=inputs, **call)


@pytest.mark.parametrize("most", [1, 40, 1 << 21])
def test_every_tile_has_its_state(most: int, tmp_path: Path) -> None:
    """Also where blocks lie apart, and looked at in parts of any size."""
    attention = loaded("vmoba")
    kernel = attention.kernel
    assert_formatted(emit(kernel, "", "vmoba"))
    module: Any = TritonBackend(Store(tmp_path)).load(kernel).module
    q, k, _ = tensors("vmoba")
    (n_q, n_k), offset = SIZES["vmoba"], 14
    plan = attention.plan(q, k)
    seen = attention.mask(n_q, n_k, plan=plan)
    values = {one.name: plan.places[one.name] for one in kernel.attention.params}
    module.MOST_STATES = most
    sizes = (1, n_q, n_k, offset, values, dict(plan.tables), False)
    found = module.build_lists(*sizes, (16, 16))
    turned = module.reversed_lists(found, 0, n_k)
    starts = [range(first, end, 16) for first, end in ((-offset, n_q), (0, n_k))]
    for head in range(4):
        states = {}
        for qt, q0 in enumerate(starts[0]):
            for kt, k0 in enumerate(starts[1]):
                part = seen[0, head, max(q0, 0) : q0 + 16, k0 : k0 + 16]
                states[qt, kt] = int(part.any()) + int(part.any() and not part.all())
        for lists, own in ((found, 0), (turned, 1)):
            tiles, first, partial, full = (x.tolist() for x in lists[:4])
            for at in range(len(starts[own])):
                start, n_partial = first[0][head][at], partial[0][head][at]
                end = start + n_partial + full[0][head][at]
                listed = [(t, 2) for t in tiles[start : start + n_partial]]
                listed += [(t, 1) for t in tiles[start + n_partial : end]]
                row = {key[1 - own]: x for key, x in states.items() if key[own] == at}
                assert sorted(listed) == sorted((t, x) for t, x in row.items() if x)


@pytest.mark.parametrize(
    ("clauses", "alike"),
    [
        ("let some = top(2, gate per q over g)\nmask (q, k // 4) in some", 2),
        ("let some = top(2, gate per q over h)\nmask (q, k // 4) in some", 2),
        ("let some = top(2, gate per q)\nmask (q, k // 4) in some", 1),
        ("let some = top(h, gate per q over g)\nmask (q, k // 4) in some", 1),
        ("let some = top(2, gate per q over g)\nmask (q, k // 4) in some & k > h", 1),
        (
            """let some = top(2, gate per q over g, always k // 4 == h)
            mask (q, k // 4) in some""",
            1,
        ),
    ],
)
def test_heads_that_share_a_choice_share_lists(
    clauses: str, alike: int, tmp_path: Path
) -> None:
    text = f"heads 4 kv 2\nlet gate = Q @ mean(K by k // 4)\n{clauses}"
    source = Source("chosen.pat", f"attention chosen {{\n{text}\n}}\n")
    attention = Attention(trace_source(source, schedule=SMALL)).backend("triton")
    module: Any = TritonBackend(Store(tmp_path)).load(attention.kernel).module
    q, k, _ = tensors("moba")
    plan = attention.plan(q, k)
    values = {
        one.name: plan.places[one.name] for one in attention.kernel.attention.params
    }
    found = module.build_lists(
        1, 21, 35, 14, values, dict(plan.tables), False, (16, 16)
    )
    assert len(found[7]) - 1 == 4 // alike
    assert found[8].flatten().tolist() == [head // alike for head in range(4)]


@pytest.mark.parametrize("name", ["moba", "scored"])
def test_lists_of_tables_that_a_graph_writes_are_not_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay writes to them without a trace, here with the counter put back."""
    attention = loaded(name)
    module = TritonBackend(Store(tmp_path)).load(attention.kernel).module
    q, k, v = tensors(name)
    plan = attention.plan(q, k)
    given = {
        one.name: plan.places[one.name] for one in attention.kernel.attention.params
    }
    tables = {key: table.clone() for key, table in plan.tables.items()}
    kept = module.LISTS if name == "moba" else module.STRIPES
    kept.clear()
    before = module.forward(q, k, v, **tables, **given)
    assert len(kept) == 1
    kept.clear()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    module.note_captured(tables.values(), torch.device("cpu"))
    assert not module.CAPTURED
    module.note_captured(tables.values(), torch.device("cuda"))
    monkeypatch.undo()
    module.forward(q, k, v, **tables, **given)
    for table in tables.values():
        table.data.logical_not_()
    after = module.forward(q, k, v, **tables, **given)
    module.CAPTURED.clear()
    assert not kept and not torch.equal(before, after)


def dense(name: str, tensors: list[Tensor], seen: Tensor) -> Tensor:
    """In float64 under a mask, with the score of `scored`."""
    q, k, v = tensors
    if name != "scored":
        return scaled_dot_product_attention(q, k, v, seen, enable_gqa=True)
    k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    logits = 3.0 * torch.tanh(q @ k.mT / 4 / 3.0)
    return torch.softmax(logits.masked_fill(~seen, -torch.inf), -1) @ v
