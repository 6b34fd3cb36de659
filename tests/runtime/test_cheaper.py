"""`else dense when cheaper` in packages: decided as `patternc.load` decides."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
import torch

from patternc.attention import Attention
from patternc.ir.selected import chosen_params
from patternc.packaged import attention_of
from patternc.plan.cheaper import costs
from patternc.runtime.attention import PackagedAttention
from patternc.runtime.cheaper import CallSizes, milliseconds
from patternc.runtime.format import PackageError, join, split
from patternc.runtime.package import package_of
from tests.runtime.packages import (
    CHEAPER,
    FORWARD,
    TRAINED,
    StubDriver,
    quick_bytes,
    quick_package,
    trace_of,
)

LENGTHS = (1, 47, 49, 255, 1000, 4096, 16384, 16385, 30_011, 65536, 131_072, 1 << 20)
CALLS = [
    *((n, n, 0, 128) for n in LENGTHS),
    *((1, n, n - 1, 64) for n in LENGTHS[3:]),
    *((n // 3, n, n - n // 3, 128) for n in LENGTHS[4:]),
    (300, 20_000, 100, 128),
    (0, 64, 64, 128),
    (64, 0, -64, 128),
]


@pytest.mark.parametrize("name", CHEAPER)
def test_the_same_decision_and_times(name: str) -> None:
    own, trace = PackagedAttention(quick_package(name, FORWARD)), trace_of(name)
    attention, loaded = trace.kernel.attention, Attention(trace_of(name))
    facts, other = own.manifest.facts, own.manifest.alternative
    assert other is not None
    names, found = chosen_params(attention), set()
    for (n_q, n_k, offset, head_dim), n in product(CALLS, (3, 2000) if names else (0,)):
        values = dict.fromkeys(facts.plan.params if facts.plan else (), n)
        its = loaded.is_dense(n_q, n_k, offset, head_dim, **values)
        assert own.is_dense(n_q, n_k, offset, head_dim, **values) == its, (n_q, n_k, n)
        found.add(its)
        if n_q * n_k:
            params = tuple(values.items())
            price = costs(attention, n_q, n_k, offset, params, head_dim=head_dim)
            wanted = (price.estimate, price.chosen, price.dense)
            every = dict.fromkeys(facts.params, 0) | values
            given = CallSizes(n_q, n_k, offset, head_dim, every)
            assert milliseconds(other.choosing, facts.heads, given) == wanted
    assert found == {True, False}


def tensors(length: int, heads: int, kv_heads: int) -> tuple[torch.Tensor, ...]:
    q = torch.zeros(1, heads, length, 64, dtype=torch.float16)
    k = torch.zeros(1, kv_heads, length, 64, dtype=torch.float16)
    return q, k, k.clone()


def ready(name: str) -> tuple[PackagedAttention, PackagedAttention, StubDriver]:
    """A package and its dense program, whose tensors are the CPU's."""
    driver = StubDriver()
    attn = PackagedAttention(quick_package(name, TRAINED), driver)
    assert attn.dense is not None
    for one in (attn, attn.dense):
        one._ready().INTERPRETED = True
    return attn, attn.dense, driver


def test_a_call_launches_one_program_or_the_other() -> None:
    attn, _, driver = ready("shares_or_dense")
    q, k, v = tensors(70, 4, 2)

    def launched(**given: Any) -> set[str]:
        driver.launches.clear()
        assert attn(q, k, v, **given).shape == q.shape
        return {launch.entry for launch in driver.launches}

    assert launched() == {"forward_kernel"}
    plan = attn.plan(q, k)
    assert launched(plan=plan) == {"list_blocks_kernel", "forward_kernel"}
    attn._decisions.found = lambda *_: False  # type: ignore[method-assign]
    assert {"choose_kernel", "forward_kernel"} <= launched()


def test_the_dense_program_has_gradients_and_its_own_arguments() -> None:
    attn, dense, driver = ready("some_heads")
    q, k, v = tensors(70, 8, 4)
    gate = torch.zeros(8, requires_grad=True)
    out = attn(q, k, v, gate=gate, n=5, w=60)
    (gradient,) = torch.autograd.grad(out.sum(), gate)
    assert gradient.shape == gate.shape
    assert "key_gradient_kernel" in {launch.entry for launch in driver.launches}
    with pytest.raises(TypeError, match="`m` is neither a run-time parameter nor"):
        attn(q, k, v, gate=gate, m=3)
    with pytest.raises(TypeError, match="`n`: expected an integer"):
        attn(q, k, v, gate=gate, n=0.5)  # type: ignore[call-overload]
    with pytest.raises(PackageError, match="built for head sizes 64"):
        attn(*(x[..., :32] for x in (q, k, v)), gate=gate)
    assert dense.manifest.facts.plan is None


def test_the_operators_have_both() -> None:
    own, _, driver = ready("some_heads")
    attn = attention_of(own)
    q, k, v = tensors(70, 8, 4)
    assert attn.is_dense(70, 70, 0)
    attn(q, k, v, gate=torch.zeros(8))
    assert {launch.entry for launch in driver.launches} == {"forward_kernel"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("choosing", "times", "dense_ps"), -1.0),
        (("choosing", "times", "dense_ps"), 1e300),
        (("choosing", "tables"), []),
        (("choosing", "tables", 0, "sizes"), []),
        (("choosing", "tables", 0, "scope"), [2]),
        (("choosing", "tables", 0, "sizes", 0, "tokens"), ["os"]),
        (("choosing", "tables", 0, "amount", "tokens"), ["q"]),
        (("choosing", "scored", 0, "lives", 0, "condition", "tokens"), ["q"]),
        (("choosing", "cases", 0, "kind"), "eval"),
        (("choosing", "cases", 0, "head"), 8),
        (("choosing", "cases", 0, "mask", "tokens"), ["drawn_7"]),
        (("choosing", "dense", 0, "mask", "tokens"), ["drawn_0"]),
        (("facts", "heads"), 4),
        (("facts", "name"), "other"),
        (("facts", "sinks", 0, "value", "tokens"), ["import os"]),
        (("variants", 0, "code"), 1 << 20),
        (("variants", 0, "target"), "sm_1"),
    ],
    ids=str,
)
def test_an_absurd_alternative_is_refused(path: tuple[Any, ...], value: Any) -> None:
    text, stored = split(quick_bytes("some_heads", FORWARD))
    manifest = json.loads(text)
    *outer, last = path
    own = manifest["alternative"]
    for key in outer:
        own = own[key]
    assert own[last] != value
    own[last] = value
    with pytest.raises(PackageError):
        package_of(join(json.dumps(manifest).encode(), [bytes(stored)]))


def test_nothing_is_chosen_between_without_selections() -> None:
    text, stored = split(quick_bytes("causal", FORWARD))
    manifest = json.loads(text)
    other = json.loads(split(quick_bytes("some_heads", FORWARD))[0])["alternative"]
    manifest["alternative"] = other
    with pytest.raises(PackageError, match="a choice between programs that is none"):
        package_of(join(json.dumps(manifest).encode(), [bytes(stored)]))
