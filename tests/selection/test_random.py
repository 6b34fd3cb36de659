"""Random programs that select: the chosen sets, the masks and the outputs."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest
import torch

from patternc import driver
from patternc.backends import choosing, maps
from patternc.backends.map_values import Values, softmax_of
from patternc.backends.protocol import Backend
from patternc.backends.reference import ReferenceBackend
from patternc.backends.tiled import TiledBackend
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import TritonBackend
from patternc.ir.nodes import Attention
from patternc.ir.selection import Selection
from patternc.plan.kernel import Kernel, Schedule
from patternc.samples import with_plan
from patternc.source import Source
from patternc.store import Store
from tests.selection.random_selections import Call, Program, draw

TILES = Schedule(block_q=16, block_k=16)


def compiled(program: Program) -> Kernel:
    return driver.compile_source(Source("drawn.pat", program.text), None, None, TILES)


def tensors(call: Call) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    inputs = {name: torch.from_numpy(x) for name, x in call.inputs.items()}
    return torch.from_numpy(call.q), torch.from_numpy(call.k), inputs


def tables_of(
    attention: Attention, call: Call
) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    q, k, inputs = tensors(call)
    return with_plan(attention, q, k, call.scale, call.q_offset, {}, inputs)


def dense(program: Program, e: int, h: int) -> np.ndarray:
    """The mask of one batch element and head, pair by pair."""
    call = program.call
    rows = [
        [program.mask(call, e, h, q, k) for k in range(call.n_k)]
        for q in call.queries()
    ]
    return np.array(rows, dtype=np.bool_)


def attended(program: Program, v: np.ndarray) -> np.ndarray:
    """Softmax over the visible pairs, row by row; 0 without any."""
    call = program.call
    output = np.zeros((*call.q.shape[:3], v.shape[3]))
    for e in range(call.q.shape[0]):
        for h in range(call.heads):
            group = h // (call.heads // call.kv_heads)
            visible = dense(program, e, h)
            logits = call.q[e, h] @ call.k[e, group].T * call.scale
            for row in np.flatnonzero(visible.any(axis=1)):
                seen = np.flatnonzero(visible[row])
                weights = np.exp(logits[row, seen] - logits[row, seen].max())
                output[e, h, row] = weights @ v[e, group, seen] / weights.sum()
    return output


def run(
    backend: Backend, program: Program, v: np.ndarray, dtype: torch.dtype
) -> np.ndarray:
    """The output of a backend that is given what the definition chose."""
    kernel = compiled(program)
    q, k, _ = tensors(program.call)
    params, inputs = tables_of(kernel.attention, program.call)
    found = backend.load(kernel)(
        q.to(dtype),
        k.to(dtype),
        torch.from_numpy(v).to(dtype),
        scale=program.call.scale,
        q_offset=program.call.q_offset,
        params=params,
        return_lse=False,
        inputs={
            name: x.to(dtype) if x.dtype.is_floating_point else x
            for name, x in inputs.items()
        },
    )
    assert isinstance(found, torch.Tensor)
    return found.double().numpy()


def values_for(program: Program) -> np.ndarray:
    call = program.call
    shape = (call.k.shape[0], call.kv_heads, call.n_k, 16)
    return np.random.default_rng(0).standard_normal(shape)


def check_sets(program: Program, attention: Attention) -> None:
    """Every table holds the keys that the dictionaries have, and no others."""
    params, tables = tables_of(attention, program.call)
    for selection in attention.selections:
        table = tables[selection.table]
        firsts = [
            params.get(selection.first(place), 0)
            for place in range(len(selection.keys))
        ]
        for (e, h), wanted in program.call.sets[selection.table].items():
            at = table[e, h].nonzero() + torch.tensor(firsts, dtype=torch.int64)
            found = {tuple(key) for key in at.tolist()}
            assert found == wanted, (selection.table, e, h, program.text)


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_chosen_sets_are_what_programs_mean(start: int) -> None:
    for index in range(start, start + 20):
        program = draw(Random(index))
        check_sets(program, compiled(program).attention)


@pytest.mark.parametrize("start", range(200, 224, 12))
def test_outputs_are_those_of_the_chosen_pairs(start: int) -> None:
    for index in range(start, start + 12):
        program = draw(Random(index))
        v = values_for(program)
        wanted = attended(program, v)
        for backend in (ReferenceBackend(), TiledBackend()):
            found = run(backend, program, v, torch.float64)
            np.testing.assert_allclose(found, wanted, atol=1e-9, err_msg=program.text)


@pytest.mark.parametrize("index", [300, 301, 303, 306, 310, 311])
def test_triton_computes_the_chosen_pairs(index: int, tmp_path: Path) -> None:
    program = draw_wide(index)
    v = values_for(program)
    found = run(TritonBackend(Store(tmp_path)), program, v, torch.float32)
    np.testing.assert_allclose(
        found, attended(program, v), atol=2e-5, err_msg=program.text
    )


def draw_wide(index: int) -> Program:
    """A program whose call has 16 channels, as kernels want."""
    return draw(Random(index), channels=16)


def test_rows_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(400, 425):
        program = draw(Random(index))
        monkeypatch.setattr(maps, "NUMBERS_AT_ONCE", 2 ** (index % 8))
        check_sets(program, compiled(program).attention)


def test_a_module_defines_every_name_once() -> None:
    for index in range(300, 304):
        kernel = compiled(draw_wide(index))
        text = emit(kernel, kernel.attention.span.source.text, kernel.attention.name)
        defined = [
            node.name
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        assert len(defined) == len(set(defined)), sorted(defined)


# --- what the programs must find


def finds_a_difference() -> bool:
    """In programs that show none without a fault: those of the first test."""
    for index in range(60):
        program = draw(Random(index))
        try:
            check_sets(program, compiled(program).attention)
        except AssertionError:
            return True
    return False


def smaller_last(given: choosing.Candidates) -> torch.Tensor:
    """Ties to the greater key."""
    turned = replace(
        given,
        **{
            name: getattr(given, name).flip(-1)
            for name in ("numbers", "live", "always")
        },
    )
    return given.live.shape[-1] - 1 - RANKING(turned)


def always_is_nothing(given: choosing.Candidates) -> torch.Tensor:
    return RANKING(replace(given, always=torch.zeros_like(given.always)))


def one_more(
    selection: Selection, given: choosing.Candidates, order: torch.Tensor
) -> torch.Tensor:
    """`top_p` takes a key too many."""
    return UNTIL(selection, given, order) + 1


def of_all(found: Values, size: int) -> Values:
    """A softmax over entries that are not there, too."""
    every = Values(found.numbers, torch.ones_like(found.live))
    return Values(SOFTMAX(every, size).numbers, found.live)


def heads_alone(
    groups: object, over: object, attention: object, *found: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    return found


RANKING, UNTIL, SOFTMAX = choosing._ranking, choosing._until, softmax_of


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (choosing, "_ranking", smaller_last),
        (choosing, "_ranking", always_is_nothing),
        (choosing, "_until", one_more),
        (maps, "softmax_of", of_all),
        (maps, "join_heads", heads_alone),
    ],
)
def test_a_fault_is_found(
    module: ModuleType, name: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, fault)
    assert finds_a_difference()
