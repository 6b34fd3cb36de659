"""The launcher of packages launches what the generated module launches."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patternc.backends.hopper.route import chosen_route
from patternc.backends.triton import host
from patternc.backends.triton.emit import emit
from patternc.backends.triton.features import features_of
from patternc.backends.triton.pair_facts import pair_facts
from patternc.backends.triton.plan_facts import score_reads
from patternc.backends.triton.recording import (
    DTYPES,
    Call,
    Launch,
    Recorder,
    Recording,
    _inputs,
    _some_lists,
    few_runs,
    recording_of,
    stand_in,
)
from patternc.runtime.instance import host_of
from patternc.runtime.launch import Code
from patternc.store import Store
from tests.runtime.packages import (
    DATA,
    PROGRAMS,
    TRAINED,
    StubDriver,
    kernel_of,
    quick_package,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For generated modules."""
    return tmp_path_factory.mktemp("modules")


@lru_cache
def generated(name: str, folder: Path) -> Recording:
    """The module of a program, its kernels replaced."""
    kernel = kernel_of(name)
    name_of = kernel.attention.name
    route = None if name in DATA else chosen_route(kernel)
    text = emit(kernel, {**PROGRAMS, **DATA}[name], name_of, route)
    return recording_of(Store(folder).put(text, name, ".py"))


@lru_cache
def packaged(name: str) -> Recording:
    """The same of its package."""
    package = quick_package(name, TRAINED)
    module: Any = host_of(package, Code(package, StubDriver()))
    found: list[Launch] = []
    for word in vars(module).copy():
        if word.endswith("_kernel"):
            setattr(module, word, Recorder(word, found))
    for at, kernels in enumerate(module.MAPS):
        for word in kernels:
            kernels[word] = Recorder(f"{word}_of_map_{at}", found)
    stored = module.stored_lists
    module.stored_lists = lambda *given: stored(*given[:-1], torch.device("cpu"))
    module.add_pair_sums, module.runs = lambda *_: None, few_runs(module.runs)
    if module.LISTED:  # inputs of the tests have no values
        module.tile_lists = lambda batch, *_: _some_lists(batch, module.HEADS)
        module.reversed_lists = lambda lists, *_: lists
    return Recording(module, found, module.access_of, module.most_steps)


@st.composite
def calls(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Tensors and arguments of a call that both serve."""
    attention = kernel_of(name).attention
    form = draw(st.sampled_from(["none", "none", "padded", "packed"]))
    batch = 1 if form == "packed" else draw(st.integers(0, 3))
    n_q = n_k = draw(st.sampled_from([1, 2, 63, 64, 65, 200, 1000]))
    offset = None
    if attention.layout is not None:
        form, n_q = "none", attention.layout.size
        n_k = n_q
    elif form == "none":
        n_k = draw(st.sampled_from([0, 1, 64, 127, 513, 5000, 70_000]))
        offset = draw(st.none() | st.integers(-100, 70_000))
    dtype, dim = draw(st.sampled_from([*DTYPES])), draw(st.sampled_from([64, 40, 128]))
    is_transposed = draw(st.booleans())

    def tensor(heads: int, rows: int) -> Tensor:
        kind = DTYPES[dtype]
        if is_transposed:
            shape = (batch, rows, heads, dim)
            return torch.empty(shape, dtype=kind, device="meta").transpose(1, 2)
        return torch.empty((batch, heads, rows, dim), dtype=kind, device="meta")

    named: dict[str, Any] = {}
    if form == "padded":
        named["lengths"] = torch.empty(batch, dtype=torch.int32, device="meta")
    if form == "packed":
        count = draw(st.integers(2, 5))
        named["cu_seqlens"] = torch.empty(count, dtype=torch.int64, device="meta")
        named["max_seqlen"] = draw(st.integers(0, n_q))
    scale = draw(st.sampled_from([None, 0.5]))
    return {
        "tensors": (
            tensor(attention.heads, n_q),
            tensor(attention.kv_heads, n_k),
            tensor(attention.kv_heads, n_k),
        ),
        "named": {**named, "scale": scale, "q_offset": offset},
        "target": draw(st.sampled_from(["sm_80", "sm_90", "gfx942"])),
        "is_idle": draw(st.booleans()),
        "has_d_lse": draw(st.booleans()),
    }


def launches_of(recording: Recording, call: dict[str, Any]) -> list[Launch]:
    """What a call launches, forward and backward."""
    module = recording.module
    own, target = recording.access_of, call["target"]
    stand_in(module, own, target, is_idle=call["is_idle"])
    recording.found.clear()
    q, k, v = call["tensors"]
    out, lse = module.attend(q, k, v, **call["named"])
    d_lse = torch.empty_like(lse) if call["has_d_lse"] else None
    d_out = torch.empty_like(out)
    module.gradients(q, k, v, out, lse, d_out, d_lse, **call["named"])
    return [*recording.found]


def described(launch: Launch) -> tuple[object, ...]:
    """A launch without the identity of its tensors."""
    arguments = [_described(x) for x in launch.arguments]
    return (launch.kernel, launch.grid, arguments, dict(launch.options))


def _described(value: Any) -> object:
    if isinstance(value, Tensor):
        content = value.flatten().tolist() if value.device.type == "cpu" else None
        return (value.dtype, value.shape, value.stride(), content)
    if hasattr(value, "block_shape"):
        sizes = (*value.shape, *value.strides, *value.block_shape)
        return (_described(value.base), sizes)
    return value


@pytest.mark.parametrize("name", PROGRAMS)
@given(data=st.data())
def test_the_same_launches(name: str, folder: Path, data: st.DataObject) -> None:
    call = data.draw(calls(name))
    try:
        expected = launches_of(generated(name, folder), call)
    except ValueError as error:
        with pytest.raises(ValueError) as caught:
            launches_of(packaged(name), call)
        assert str(caught.value) == str(error)
        return
    found = launches_of(packaged(name), call)
    assert [described(x) for x in found] == [described(x) for x in expected]


@pytest.mark.parametrize("name", DATA)
def test_the_same_launches_where_inputs_are_read(name: str, folder: Path) -> None:
    """And the same of plans, in the numbers of calls that are recorded."""
    attention = kernel_of(name).attention
    both = generated(name, folder), packaged(name)
    reads = score_reads(features_of(kernel_of(name)))
    wanted = () if reads is None else tuple({x.table for x in reads.reads})
    wanted += tuple({x.table for x in pair_facts(kernel_of(name))} - set(wanted))
    assert bool(wanted) == (name in ("slopes", "gated", "pairs", "ordered_pairs"))
    seen, sizes = set(), ((1000, 1000, 128), (1, 70_000, 40))
    if attention.layout is not None:
        sizes = ((attention.layout.size, attention.layout.size, 128),) * 2
    for n_q, n_k, dim in sizes:
        for target, is_idle in (("sm_90", n_q == 1), ("sm_80", False)):
            call = Call(n_q, n_k)
            noted = []
            for recording in both:
                module = recording.module
                stand_in(module, recording.access_of, target, is_idle=is_idle)
                shapes = [(attention.heads, n_q), *[(attention.kv_heads, n_k)] * 2]
                q, k, v = (
                    torch.empty(2, *shape, dim, dtype=torch.float16, device="meta")
                    for shape in shapes
                )
                given: dict[str, Any] = _inputs(both[0].module, call)
                recording.found.clear()
                if attention.selections:
                    values = dict.fromkeys(module.PLAN_PARAMS, 3)
                    found = module.select(q, k, 0.5, n_k - n_q, values)
                    given = {**found, **{x: 3 for x in values if x in module.PARAMS}}
                given |= {x: 3 for x in module.PARAMS if x not in given}
                module.forward(q, k, v, **given)
                out, lse = module.attend(q, k, v, **given)
                for names in {(), wanted}:
                    site = (q, k, v, out, lse, out, None, names)
                    dq, _, _, own = module.gradients(*site, **given)
                    assert dq.shape == q.shape and own.keys() == set(names)
                noted.append([described(x) for x in recording.found])
            assert noted[0] == noted[1] and len(noted[0]) > 4
            seen |= {launch[0] for launch in noted[0]}
    assert seen & {"forward_kernel", "ordered_kernel"} and "hopper_kernel" not in seen


@pytest.mark.parametrize("name", ["causal", "duo"])
def test_a_call_launches_something(name: str, folder: Path) -> None:
    q = torch.empty(1, kernel_of(name).attention.heads, 1, 64, device="meta")
    k = torch.empty(1, kernel_of(name).attention.kv_heads, 9000, 64, device="meta")
    call = {
        "tensors": (q, k, k),
        "named": {},
        "target": "sm_90",
        "is_idle": True,
        "has_d_lse": False,
    }
    names = [launch.kernel for launch in launches_of(packaged(name), call)]
    assert names[:3] == ["forward_kernel", "forward_kernel", "combine_kernel"]
    assert "key_gradient_kernel" in names


def test_the_launcher_is_made_from_the_templates() -> None:
    for name, text in host.texts().items():
        path = host.FOLDER / name
        assert path.read_text() == text, "run python -m patternc.backends.triton.host"
