"""Kernels with inputs, scores, weights, sinks, outputs, skipped heads and orders.

In Triton's interpreter, against the definition; tile lists against the plan's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from torch import Tensor

from patternc.backends.declared import declarations
from patternc.backends.input_checks import check_inputs
from patternc.backends.reference import ReferenceBackend
from patternc.backends.triton.load import TritonBackend
from patternc.plan.expand import live_tiles
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from tests.backends.triton.data_programs import (
    BATCH,
    LAYOUT_SIZE,
    PROGRAMS,
    inputs_of,
    kernel_of,
    module_of,
    text_of,
)
from tests.float_strategies import FEW, DataCall, data_calls
from tests.formatting import assert_clean

LAYOUTS = {"scene", "axes"}
OWN_VALUES = {"outputs", "clusters"}
SLACK = {"phases": 3}  # tiles between two phases stay undecided


def sizes(name: str) -> list[tuple[int, int, int]]:
    """n_q, n_k and q_offset: square, then a chunk, then rows that see nothing."""
    if name in LAYOUTS:
        return [(LAYOUT_SIZE, LAYOUT_SIZE, 0), (50, LAYOUT_SIZE, LAYOUT_SIZE - 50)]
    found = [(70, 70, 0), (37, 75, 38)]
    return found if name in OWN_VALUES else [*found, (40, 40, -20)]


def tensors(
    kernel: Kernel, n_q: int, n_k: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Seeded normal q, k and v."""
    generator = torch.Generator().manual_seed(n_q + 1000 * n_k)
    attention = kernel.attention
    heads = (attention.heads, attention.kv_heads, attention.kv_heads)
    q, k, v = (
        torch.randn(BATCH, count, n, 64, generator=generator).to(dtype)
        for count, n in zip(heads, (n_q, n_k, n_k), strict=True)
    )
    return q, k, v


def checked(
    kernel: Kernel, given: dict[str, Tensor], size: tuple[int, int, int]
) -> dict[str, Tensor]:
    """The inputs as a loaded attention takes them."""
    attention = kernel.attention
    return check_inputs(
        attention.name,
        declarations(attention),
        given,
        batch=BATCH,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        n_q=size[0],
        n_k=size[1],
        q_offset=size[2],
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_definition(name: str, tmp_path: Path) -> None:
    kernel, module = kernel_of(name), module_of(name, tmp_path)
    for size in sizes(name):
        n_q, n_k, q_offset = size
        q, k, v = tensors(kernel, n_q, n_k)
        given = inputs_of(name, *size)
        wanted = ReferenceBackend().load(kernel)(
            q,
            k,
            v,
            scale=0.125,
            q_offset=q_offset,
            params={},
            return_lse=True,
            inputs=checked(kernel, given, size),
        )
        for function in (module.forward, module.reference):
            found = function(q, k, v, q_offset=q_offset, return_lse=True, **given)
            torch.testing.assert_close(
                found, wanted, atol=2e-5, rtol=2e-5, equal_nan=True
            )


@pytest.mark.parametrize("scale", [0.0, -0.5])
@pytest.mark.parametrize("name", ["sinks", "alibi"])
def test_scales_and_half_precision(name: str, scale: float, tmp_path: Path) -> None:
    kernel, module = kernel_of(name), module_of(name, tmp_path)
    given = inputs_of(name, 50, 50, 0)
    q, k, v = tensors(kernel, 50, 50, torch.float16)
    found = module.forward(q, k, v, scale=scale, **given)
    wanted = module.reference(q, k, v, scale=scale, **given)
    torch.testing.assert_close(found, wanted, atol=4e-3, rtol=4e-3)


def test_sinks_and_outputs_of_rows_without_keys(tmp_path: Path) -> None:
    module = module_of("sinks", tmp_path)
    q, k, v = tensors(kernel_of("sinks"), 5, 0)
    given = inputs_of("sinks", 5, 0, -5)
    output, lse = module.forward(q, k, v, return_lse=True, **given)
    assert bool((output == 0).all())
    torch.testing.assert_close(
        lse[:, 1:3], given["logit"][None, 1:3, None].expand(2, 2, 5)
    )
    assert bool((lse[:, 0] == -torch.inf).all())


def test_the_order_of_a_square_call_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of("phases", tmp_path)
    started = []
    plain = module.start

    def recording(kernel: object, *arguments: Any) -> None:
        if arguments[-1][-1] != "exact":
            started.append(kernel is module.ordered_kernel)
        plain(kernel, *arguments)

    monkeypatch.setattr(module, "start", recording)
    for n_q in (60, 40):
        module.forward(*tensors(kernel_of("phases"), n_q, 60))
    assert started == [True, False]


@pytest.mark.parametrize(
    "name", ["documents", "blocks", "prefix", "head_table", "phases", "scene"]
)
def test_lists_are_those_of_the_plan(name: str, tmp_path: Path) -> None:
    """Every live tile once, FULL only where the plan says so, few more than needed."""
    kernel, module = kernel_of(name), module_of(name, tmp_path)
    n = LAYOUT_SIZE if name in LAYOUTS else 400
    tables = checked(kernel, inputs_of(name, n, n, 0), (n, n, 0))
    own = {key: tables[key] for key in module.LIST_INPUTS}
    ordered = any(cover.order for cover in kernel.covers)
    blocks = module.BLOCK_Q, module.BLOCK_K
    lists = module.build_lists(BATCH, n, n, 0, {}, own, ordered, blocks)
    tiles, first, partial, full = lists[:4]
    for head in range(kernel.attention.heads):
        cover = kernel.cover_of(head)
        if not (cover.ranges is None or (ordered and cover.order)):
            continue
        for b in range(len(first)):
            values = {key: x[b % len(x)].numpy() for key, x in own.items()}
            live = live_tiles(cover, kernel.schedule, head, n, n, 0, {}, values)
            plan_tiles = set(zip(live.qt.tolist(), live.kt.tolist(), strict=True))
            sure = ~live.partial
            plan_full = set(
                zip(live.qt[sure].tolist(), live.kt[sure].tolist(), strict=True)
            )
            found, found_full = [], []
            for qt in range(first.shape[2]):
                start, middle = int(first[b, head, qt]), int(partial[b, head, qt])
                row = tiles[start : start + middle + int(full[b, head, qt])].tolist()
                found += [(qt, kt) for kt in row]
                found_full += [(qt, kt) for kt in row[middle:]]
            assert len(set(found)) == len(found)
            assert plan_tiles <= set(found)
            assert set(found_full) <= plan_full
            assert len(found) <= SLACK.get(name, 1.3) * len(plan_tiles)


def test_lists_are_kept_for_the_same_unchanged_inputs(tmp_path: Path) -> None:
    module = module_of("documents", tmp_path)
    cpu, doc = torch.device("cpu"), torch.zeros(1, 90, dtype=torch.int32)

    def lists(tensor: Tensor) -> object:
        return module.tile_lists(1, 90, 90, 0, {}, {"doc": tensor}, False, cpu)

    newest = lists(doc)
    assert lists(doc) is newest
    assert lists(doc.clone()) is not newest
    doc[0, 40:] = 1
    assert lists(doc) is not newest


def test_cost_follows_tokens_and_live_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of("documents", tmp_path)
    judged = []
    plain = module.known

    def counting(levels: object, level: int, e: Tensor, node: Tensor) -> object:
        judged.append(len(node))
        return plain(levels, level, e, node)

    monkeypatch.setattr(module, "known", counting)
    n = 1 << 17  # 4096 x 4096 tiles of 32
    doc = (torch.arange(n, dtype=torch.int32) // 100)[None]
    tiles = module.build_lists(1, n, n, 0, {}, {"doc": doc}, False, (32, 32))[0]
    assert 4096 <= len(tiles) <= 5 * 4096
    assert sum(judged) <= 8 * module.FIRST_BOXES + 40 * len(tiles)


def test_strides_offsets_and_dtypes_of_inputs(tmp_path: Path) -> None:
    kernel, module = kernel_of("blocks"), module_of("blocks", tmp_path)
    q, k, v = tensors(kernel, 100, 100)
    keep = inputs_of("blocks", 100, 100, 0)["keep"]
    wanted = module.forward(q, k, v, keep=keep)
    turned = keep.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    odd = torch.empty(keep.numel() + 1, dtype=torch.bool)[1:].view(keep.shape)
    for same in (turned, odd.copy_(keep), keep.expand(BATCH, *keep.shape)):
        assert torch.equal(module.forward(q, k, v, keep=same), wanted)
    documents = module_of("documents", tmp_path)
    q, k, v = tensors(kernel_of("documents"), 90, 90)
    doc = inputs_of("documents", 90, 90, 0)["doc"]
    wanted = documents.forward(q, k, v, doc=doc)
    for dtype in (torch.uint8, torch.int16, torch.int64):
        assert torch.equal(documents.forward(q, k, v, doc=doc.to(dtype)), wanted)
    far = doc.long() * (1 << 40)
    assert torch.equal(documents.forward(q, k, v, doc=far), wanted)


def test_refusals_name_the_input(tmp_path: Path) -> None:
    module = module_of("alibi", tmp_path)
    q, k, v = tensors(kernel_of("alibi"), 8, 8)
    with pytest.raises(TypeError, match="`slope`: expected a tensor of float"):
        module.forward(q, k, v)
    with pytest.raises(ValueError, match="`slope`: expected \\[4\\]"):
        module.forward(q, k, v, slope=torch.zeros(5))
    with pytest.raises(ValueError, match="`slope`: .*no gradient"):
        module.forward(q, k, v, slope=torch.zeros(4, requires_grad=True))
    with pytest.raises(ValueError, match="own value|value row"):
        outputs = module_of("outputs", tmp_path)
        gate = torch.zeros(9, 4)
        outputs.forward(*tensors(kernel_of("outputs"), 9, 4), q_offset=0, gate=gate)


@pytest.mark.parametrize("name", PROGRAMS)
def test_text_is_formatted_and_the_same_each_time(name: str) -> None:
    text = text_of(name)
    assert text == text_of(name)
    checks = (["format", "--check"], ["check", "--select", "F821"])
    for check in checks:
        assert_clean(text, *check)


@settings(max_examples=FEW, phases=[Phase.explicit, Phase.generate])
@given(data_calls())
def test_random_calls_are_the_reference(call: DataCall) -> None:
    kernel = plan(call.attention, Schedule(16, 16))
    q, k, v = tensors(kernel, call.length, call.length)
    single = {
        name: x.float() if x.is_floating_point() else x
        for name, x in call.inputs.items()
    }
    double = {
        name: x.double() if x.is_floating_point() else x for name, x in single.items()
    }
    arguments = {"scale": 0.125, "q_offset": 0, "params": {}, "return_lse": True}
    wanted = ReferenceBackend().load(kernel)(
        q.double(),
        k.double(),
        v.double(),
        inputs=double,
        **arguments,  # type: ignore[arg-type]
    )
    found = TritonBackend().load(kernel)(q, k, v, inputs=single, **arguments)  # type: ignore[arg-type]
    for mine, true in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            mine.double(), true, atol=2e-4, rtol=2e-4, equal_nan=True
        )
