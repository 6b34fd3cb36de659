"""The C form launches what the runtime launches: the same kernels, byte by byte."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patternc.runtime.layout import slots_of
from patternc.runtime.manifest import Variant
from tests.backends.c.libraries import COMPILER, Both, GradientsStruct, Noted, both
from tests.backends.c.libraries import struct_of as c_tensor
from tests.runtime.packages import PROGRAMS

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")


@st.composite
def calls(draw: st.DrawFn, one: Both) -> dict[str, Any]:
    """Tensors and arguments of a call that the package serves."""
    manifest, facts = one.package.manifest, one.package.manifest.facts
    served = {str(x.constants.get("SEQUENCES", "none")) for x in manifest.variants}
    form = draw(st.sampled_from(sorted(served)))
    batch = 1 if form == "packed" else draw(st.integers(0, 3))
    n_q = n_k = draw(st.sampled_from([1, 2, 63, 64, 65, 200]))
    named: dict[str, Any] = {"scale": draw(st.sampled_from([None, 0.3, 1.0]))}
    if facts.layout_size is not None:
        n_q = n_k = facts.layout_size
    elif form == "none":
        n_k = draw(st.sampled_from([1, 64, 127, 513, 9000]))
        named["q_offset"] = draw(st.none() | st.integers(-100, 9000))
    if form == "padded":
        named["lengths"] = torch.ones(batch, dtype=torch.int32)
    if form == "packed":
        count = draw(st.integers(2, 5))
        named["cu_seqlens"] = torch.ones(count, dtype=torch.int32)
        named["max_seqlen"] = draw(st.integers(0, 2 * n_q))
    for name in facts.params:
        if draw(st.booleans()):
            named[name] = draw(st.integers(-5, 300))
    dtype = draw(st.sampled_from([torch.float16, torch.float32]))
    dim = draw(st.sampled_from(manifest.head_dims))

    def tensor(heads: int, rows: int) -> Tensor:
        if draw(st.booleans()):
            return torch.empty((batch, rows, heads, dim), dtype=dtype).transpose(1, 2)
        return torch.empty((batch, heads, rows, dim), dtype=dtype)

    return {
        "tensors": (
            tensor(facts.heads, n_q),
            tensor(facts.kv_heads, n_k),
            tensor(facts.kv_heads, n_k),
        ),
        "d_out": tensor(facts.heads, n_q),
        "named": named,
        "target": draw(st.sampled_from(["sm_80", "sm_86", "sm_90", "sm_100"])),
        "multiprocessors": draw(st.sampled_from([1, 7, 132, 1 << 20])),
        "has_lse": draw(st.booleans()),
    }


def described(
    launches: list[Noted], variants: tuple[Variant, ...], known: dict[int, str]
) -> list[object]:
    """Launches whose addresses have names: of what is known, else by their order."""
    scratch: dict[int, str] = {}
    found: list[object] = []
    for launch in launches:
        variant = variants[launch.variant]
        kinds = {argument.name: argument.kind for argument in variant.arguments}
        slots: list[object] = []
        for slot, content in zip(
            slots_of(variant.arguments), launch.slots, strict=True
        ):
            if kinds.get(slot.argument) == "pointer":
                address = int.from_bytes(content, "little")
                name = known.get(address)
                slots.append(name or scratch.setdefault(address, f"{len(scratch)}"))
            elif len(content) == 128:  # the stub's maps hold the address at 8
                address = int.from_bytes(content[8:16], "little")
                slots.append((known[address], content[:8], content[16:]))
            else:
                slots.append(content)
        found.append((launch.variant, launch.numbers, slots))
    return found


def known_of(call: dict[str, Any], **more: Tensor | None) -> dict[int, str]:
    q, k, v = call["tensors"]
    all_ = {"q": q, "k": k, "v": v, "d_out": call["d_out"], **call["named"], **more}
    tensors = {name: x for name, x in all_.items() if isinstance(x, Tensor)}
    return {x.data_ptr(): name for name, x in tensors.items() if x.numel()}


def with_workspace(one: Both, handle: Any, call: Any, name: str) -> Tensor:
    """Memory of just the size that the C form asks for."""
    size = ctypes.c_size_t()
    code = one.function(name)(handle, ctypes.byref(call), ctypes.byref(size))
    assert code == 0, one.function("status_name")(code)
    memory = torch.zeros(size.value, dtype=torch.int8)
    call.workspace, call.workspace_bytes = memory.data_ptr(), size.value
    return memory


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=25)
@given(data=st.data())
def test_forward(name: str, folder: Path, data: st.DataObject) -> None:
    one = both(name, folder)
    compare_forward(one, data.draw(calls(one)))


@pytest.mark.parametrize("multiprocessors", [5, 40, 132])
@pytest.mark.parametrize("name", ["causal", "window", "by_head"])
def test_programs_that_share_a_query_tile(
    name: str, multiprocessors: int, folder: Path
) -> None:
    one = both(name, folder)
    heads, kv_heads = (
        one.package.manifest.facts.heads,
        one.package.manifest.facts.kv_heads,
    )
    for n_q, n_k in ((1, 513), (1, 9000), (100, 2000), (100, 9000)):
        k = torch.empty(1, kv_heads, n_k, 64, dtype=torch.float16)
        q = torch.empty(1, heads, n_q, 64, dtype=torch.float16)
        named = {"w": 4000} if name == "window" else {}
        call = {"tensors": (q, k, k), "d_out": q, "named": named, "has_lse": True}
        own = {"target": "sm_90", "multiprocessors": multiprocessors}
        compare_forward(one, {**call, **own})


@pytest.mark.parametrize("form", ["padded", "packed"])
def test_sequences_on_hopper(form: str, folder: Path) -> None:
    one = both("duo", folder)
    variants = one.package.manifest.variants
    names = {x.kernel for x in variants if x.constants.get("SEQUENCES") == form}
    assert {"forward_kernel", "hopper_kernel"} <= names
    numbers = torch.ones(3, dtype=torch.int32)
    for n, longest, batch in ((300, 300, 3), (100, 100, 3), (300, 127, 3)):
        batch = batch if form == "padded" else 1
        q = torch.empty(batch, 4, n, 128, dtype=torch.float16)
        k = torch.empty(batch, 2, n, 128, dtype=torch.float16)
        named: dict[str, Any] = {"lengths": numbers}
        if form == "packed":
            named = {"cu_seqlens": numbers, "max_seqlen": longest}
        call = {"tensors": (q, k, k), "d_out": q, "named": named, "has_lse": True}
        for multiprocessors in (2, 9, 1000):
            own = {"target": "sm_90", "multiprocessors": multiprocessors}
            compare_forward(one, {**call, **own})


def compare_forward(one: Both, call: dict[str, Any]) -> None:
    """Run a call in both forms."""
    variants = one.package.manifest.variants
    one.on(call["target"], call["multiprocessors"])
    q, k, v = call["tensors"]
    found = out, lse = one.host.attend(q, k, v, **call["named"])
    expected = described(
        one.stub.noted(variants), variants, known_of(call, out=out, lse=lse)
    )
    own_out, own_lse = (torch.full_like(x, 7.0) for x in found)
    handle, c_call = one.handle(), one.call(q, k, v, call["named"])
    c_call.out = own_out.data_ptr()
    has_lse = call["has_lse"] and one.package.manifest.facts.has_lse
    c_call.lse = own_lse.data_ptr() if has_lse else None
    memory = with_workspace(one, handle, c_call, "workspace")
    assert one.function("forward")(handle, ctypes.byref(c_call)) == 0
    known = known_of(call, out=own_out)
    shown = own_lse
    if not has_lse and memory.numel():
        shown = memory[: 4 * own_lse.numel()].view(torch.float32).view_as(own_lse)
    known |= {shown.data_ptr(): "lse"} if shown.numel() else {}
    launches = one.stub.noted(variants)
    assert described(launches, variants, known) == expected
    if not launches or "cu_seqlens" in call["named"]:
        assert torch.equal(own_out, torch.zeros_like(own_out))
        if has_lse or launches:
            assert torch.equal(shown, torch.full_like(own_lse, -math.inf))
    one.function("destroy")(handle)
    assert one.stub.alive()[1] == one.stub.alive()[3] == 0


@pytest.mark.parametrize("name", [x for x in PROGRAMS if x != "ordered"])
@settings(max_examples=15)
@given(data=st.data())
def test_backward(name: str, folder: Path, data: st.DataObject) -> None:
    one = both(name, folder)
    call = data.draw(calls(one))
    variants = one.package.manifest.variants
    one.on(call["target"], call["multiprocessors"])
    q, k, v = call["tensors"]
    out, lse = torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[:3])
    d_lse = torch.empty_like(lse) if call["has_lse"] else None
    d_out = call["d_out"]
    found = one.host.gradients(q, k, v, out, lse, d_out, d_lse, **call["named"])
    results = dict(zip(("dq", "dk", "dv"), found, strict=False))
    known = known_of(call, out=out, lse=lse, d_lse=d_lse, **results)
    expected = described(one.stub.noted(variants), variants, known)
    own = {name: torch.full(x.shape, 7.0, dtype=x.dtype) for name, x in results.items()}
    handle, c_call = one.handle(), one.call(q, k, v, call["named"])
    memory = with_workspace(one, handle, c_call, "backward_workspace")
    given_ = GradientsStruct(out.data_ptr(), lse.data_ptr(), c_tensor(d_out), None)
    given_.d_lse = None if d_lse is None else d_lse.data_ptr()
    for name_, tensor in own.items():
        setattr(given_, name_, tensor.data_ptr())
    code = one.function("backward")(handle, ctypes.byref(c_call), ctypes.byref(given_))
    assert code == 0
    known = known_of(call, out=out, lse=lse, d_lse=d_lse, **own)
    launches = one.stub.noted(variants)
    assert described(launches, variants, known) == expected
    assert memory.numel() or not launches
    if not launches:
        assert all(torch.equal(x, torch.zeros_like(x)) for x in own.values())
    one.function("destroy")(handle)


def test_the_kernel_for_hopper(folder: Path) -> None:
    one = both("duo", folder)
    assert one.package.manifest.facts.hopper_blocks is not None
    variants = one.package.manifest.variants
    q = torch.empty(1, 4, 256, 128, dtype=torch.float16)
    k = torch.empty(1, 2, 256, 128, dtype=torch.float16)
    for target, multiprocessors, expected in (
        ("sm_90", 8, "hopper_kernel"),
        ("sm_90", 9, "forward_kernel"),  # too few query tiles
        ("sm_80", 8, "forward_kernel"),
    ):
        one.on(target, multiprocessors)
        handle, call = one.handle(), one.call(q, k, k, {})
        call.out = q.data_ptr()
        memory = with_workspace(one, handle, call, "workspace")
        assert one.function("forward")(handle, ctypes.byref(call)) == 0
        launches = one.stub.noted(variants)
        assert variants[launches[0].variant].kernel == expected and memory.numel()
        one.function("destroy")(handle)


@pytest.mark.parametrize("name", ["ordered", "layout"])
def test_tile_lists_are_on_the_device(name: str, folder: Path) -> None:
    one = both(name, folder)
    one.on("sm_90")
    facts, variants = one.package.manifest.facts, one.package.manifest.variants
    size = facts.layout_size or 0
    q = torch.empty(1, facts.heads, size, 64, dtype=torch.float16)
    k = torch.empty(1, facts.kv_heads, size, 64, dtype=torch.float16)
    handle, call = one.handle(), one.call(q, k, k, {})
    call.out = q.data_ptr()
    memory = with_workspace(one, handle, call, "workspace")
    assert one.function("forward")(handle, ctypes.byref(call)) == 0
    launch = one.stub.noted(variants)[0]
    addresses = [
        int.from_bytes(content, "little")
        for slot, content in zip(
            slots_of(variants[launch.variant].arguments), launch.slots, strict=True
        )
        if slot.size == 8
    ]
    arrays = facts.lists[0].forward[: facts.list_tensors]
    assert arrays and memory.numel()
    first = addresses.index(memory.data_ptr()) + 1  # behind the LSE
    for array, address in zip(arrays, addresses[first:], strict=False):
        expected = one.package.blob(array.blob)
        assert ctypes.string_at(address, array.size) == expected
    one.function("destroy")(handle)


def test_a_workspace_is_cut_into_parts_that_do_not_overlap(folder: Path) -> None:
    one = both("causal", folder)
    one.on("sm_90", 132)
    variants, facts = one.package.manifest.variants, one.package.manifest.facts
    q = torch.empty(1, facts.heads, 1, 64, dtype=torch.float16)
    k = torch.empty(1, facts.kv_heads, 3000, 64, dtype=torch.float16)
    handle, call = one.handle(), one.call(q, k, k, {})
    call.out = q.data_ptr()
    memory = with_workspace(one, handle, call, "workspace")
    assert one.function("forward")(handle, ctypes.byref(call)) == 0
    combine = one.stub.noted(variants)[-1]
    variant = variants[combine.variant]
    assert variant.kernel == "combine_kernel"
    found = {
        slot.argument: int.from_bytes(content, "little")
        for slot, content in zip(
            slots_of(variant.arguments), combine.slots, strict=True
        )
    }
    rows, splits = facts.heads, found["splits"]
    assert splits > 1
    start, end = memory.data_ptr(), memory.data_ptr() + memory.numel()
    places = [
        (found["lse"], 4 * rows),
        (found["share_acc"], 4 * rows * splits * 64),
        (found["share_sums"], 8 * rows * splits),
    ]
    places.sort()
    ends = [place + size for place, size in places]
    assert places[0][0] >= start and ends[-1] <= end
    assert all(e <= place for e, (place, _) in zip(ends, places[1:], strict=False))
    one.function("destroy")(handle)
