"""The planning phase by kernels, against PyTorch's planner, program by program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from patternc.backends import planner as definition
from patternc.backends.triton import planner
from patternc.backends.triton.emit import emit
from patternc.backends.triton.fused import SummedBy, fused_of
from patternc.backends.triton.load import TritonBackend
from patternc.driver import trace_source
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store
from tests.formatting import assert_formatted

N_Q, N_K, OFFSET = 22, 41, 17

PROBE = "let probe = softmax(scores where causal for q >= N - 9)"
PROGRAMS = {
    "vertical_slash": f"""
        {PROBE}
        let columns = top(n, sum(probe by k), always k < 3)
        let diagonals = top(9, sum(probe by q - k), always q - k < 5)
        mask causal & (k in columns | q - k in diagonals)""",
    "other_groups": f"""
        {PROBE}
        let wide = top_p(0.6, sum(probe by k // 4 over g), min 3, max 6)
        let back = above(0.02, sum(probe by k - q), max 4)
        let cross = top(6, mean(probe by q + k over h))
        mask causal & (k // 4 in wide | k - q in back | q + k in cross)""",
    "blocks": """
        let all = softmax(scores where k <= q + h)
        let chosen = top_p(0.7, sum(all by q // 8, k // 8) per q // 8, crossing drop)
        mask (q // 8, k // 8) in chosen""",
    "antidiagonals": """
        let pairs = sum(scores where (q + k) % 2 == 1 by q // 2, k // 2) / 2
        let shares = softmax(pairs where k // 2 <= q // 2)
        let chosen = top_p(
            0.8, sum(shares by q // 16, k // 16) per q // 16,
            always k // 16 == 0 | k // 16 == q // 16
        )
        mask causal & (q // 16, k // 16) in chosen""",
    "pooled": """
        let coarse = softmax(
            mean(Q by q // 8) @ max(K by k // 8) * scale where (causal)[q // 8, k // 8]
        )
        let chosen = top(2, coarse per q // 8, always k // 8 == 0)
        mask causal & (q // 8, k // 8) in chosen""",
    "largest": """
        let highest = max(scores where causal by k)
        let chosen = top(n, highest)
        let tests = above(0.5, highest)
        mask causal & (k in chosen | k in tests)""",
}
SUMS = {
    "vertical_slash": {SummedBy.COLUMN, SummedBy.DIAGONAL},
    "other_groups": {
        SummedBy.COLUMN,
        SummedBy.BACK_DIAGONAL,
        SummedBy.ANTIDIAGONAL,
    },
    "blocks": {SummedBy.BLOCK},
    "antidiagonals": {SummedBy.BLOCK},
    "pooled": set(),
    "largest": {SummedBy.COLUMN},
}


def kernel_of(body: str) -> Kernel:
    text = f"attention chosen(n : runtime = 7) {{\n    heads 2 kv 1\n{body}\n}}\n"
    return trace_source(Source("chosen.pat", text), schedule=Schedule(16, 16)).kernel


@pytest.mark.parametrize("name", PROGRAMS)
def test_tables_are_those_of_the_definition(name: str, tmp_path: Path) -> None:
    kernel = kernel_of(PROGRAMS[name])
    attention = kernel.attention
    found = fused_of(attention)
    assert {one.by for one in found.sums.values()} == SUMS[name]
    assert bool(found.pools) == (name == "pooled")
    module = TritonBackend(Store(tmp_path)).load(kernel).module
    vars(module).update(ROW_TILE=16, KEY_TILE=32, DIAGONAL_TILE=32, DIAGONAL_STEPS=2)
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 2, N_Q, 16, generator=generator)
    k = torch.randn(2, 1, N_K, 16, generator=generator)
    params = {"n": 5} if attention.params else {}
    call: dict[str, Any] = {
        "scale": 0.5,
        "q_offset": OFFSET,
        "params": params,
        "inputs": {},
    }
    wanted = definition.plan_tables(attention, q, k, **call)
    tables = planner.plan_tables(module, found, attention, q, k, **call)
    assert tables.keys() == wanted.keys()
    for key, table in wanted.items():
        assert bool(table.any()), key
        assert torch.equal(tables[key], table), key


@pytest.mark.parametrize("name", ["vertical_slash", "antidiagonals", "pooled"])
def test_a_module_plans_by_itself(name: str, tmp_path: Path) -> None:
    """And attends: `forward` takes what its `plan` gives."""
    kernel = kernel_of(PROGRAMS[name])
    attention = kernel.attention
    module = TritonBackend(Store(tmp_path)).load(kernel).module
    vars(module).update(
        ROW_TILE=16, KEY_TILE=32, DIAGONAL_TILE=32, DIAGONAL_STEPS=2, PLANNED_AT_ONCE=30
    )
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 2, N_Q, 16), (1, 1, N_K, 16), (1, 1, N_K, 16))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    given = {"n": 5} if name == "vertical_slash" else {}
    call: dict[str, Any] = {"scale": 0.5, "q_offset": OFFSET}
    wanted = definition.plan_tables(attention, q, k, params=given, inputs={}, **call)
    found = module.plan(q, k, **call, **given)
    for key, table in wanted.items():
        assert torch.equal(found[key], table), key
    arguments = {**call, **found, **(given if "n" in module.PARAMS else {})}
    torch.testing.assert_close(
        module.forward(q, k, v, **arguments), module.reference(q, k, v, **arguments)
    )
    nothing = module.plan(q[:, :, :0], k, **given)
    assert all(nothing[key].numel() == 0 for key in wanted)


def test_plan_is_there_for_what_needs_nothing_else() -> None:
    """Other programs are planned by patternc."""
    for name, body in PROGRAMS.items():
        kernel = kernel_of(body)
        text = emit(kernel, "", name)
        assert ("\ndef plan(" in text) == (name != "other_groups")
        names = re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)
        assert len(names) == len(set(names))


def test_what_has_no_kernel_is_left_to_pytorch() -> None:
    """Scores with `score` lines, odd blocks, conditions that read inputs."""
    for body in (
        "score s * 2.0\nlet a = top(3, sum(softmax(scores) by k))\nmask k in a",
        "let a = top(3, sum(softmax(scores) by q, k // 9))\nmask (q, k // 9) in a",
        "input x[k] : int\nlet a = top(3, sum(scores where x[k] == 1 by k))\nmask k in a",
        "let a = top(3, sum(scores by q % 5))\nmask q % 5 in a",
    ):
        found = fused_of(kernel_of(body).attention)
        assert not found.sums and not found.pools


@pytest.mark.parametrize("name", ["vertical_slash", "antidiagonals"])
def test_the_text_is_formatted(name: str) -> None:
    kernel = kernel_of(PROGRAMS[name])
    text = emit(kernel, PROGRAMS[name], kernel.attention.name)
    assert_formatted(text)
