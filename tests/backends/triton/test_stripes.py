"""Chosen diagonals, columns and blocks in one softmax, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import (
    TritonAttention,
    TritonBackend,
    import_file,
)
from patternc.plan.kernel import Kernel
from patternc.store import Store
from tests.backends.triton.backward_calls import Step, by_kernels, excess
from tests.backends.triton.stripe_programs import (
    PROGRAMS,
    Call,
    inputs_of,
    kernel_of,
    step_for,
)
from tests.formatting import assert_formatted

CALLS = [
    (Call(70, 70, 0, 0.05), (32, 32)),
    (Call(37, 150, 113, 0.4), (16, 64)),
    (Call(50, 40, -20, 1.0), (64, 16)),
]
TURNS = [(name, *CALLS[at % 3]) for at, name in enumerate(PROGRAMS)]
OTHER_TURNS = [(name, *CALLS[(at + 1) % 3]) for at, name in enumerate(PROGRAMS)]

random_calls = st.builds(
    Call,
    st.integers(1, 60),
    st.integers(1, 70),
    st.integers(-10, 70),
    st.sampled_from((0.0, 0.03, 0.3, 0.95, 1.0)),
    st.integers(0, 9),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stripes")


def loaded(kernel: Kernel, folder: Path) -> TritonAttention:
    return TritonBackend(Store(folder)).load(kernel)


def is_right(own: TritonAttention, call: Call, step: Step | None = None) -> bool:
    """Whether the kernel says what the definition says."""
    assert "stripe_words" in own.module.forward_kernel.arg_names
    step = step or step_for(own.kernel, call)
    found = own.module.forward(
        step.q,
        step.k,
        step.v,
        scale=0.125,
        q_offset=call.q_offset,
        return_lse=True,
        **inputs_of(own.kernel, call),
    )
    wanted = step.run(step.q, step.k, step.v, step.inputs)
    return all(
        torch.allclose(a, b, atol=2e-5, rtol=2e-5, equal_nan=True)
        for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("name, call, blocks", TURNS)
def test_equals_the_definition(
    name: str, call: Call, blocks: tuple[int, int], folder: Path
) -> None:
    assert is_right(loaded(kernel_of(name, *blocks), folder), call)


@settings(max_examples=5)
@given(
    st.sampled_from(("vertical_slash", "flexible")),
    random_calls,
    st.sampled_from(((32, 32), (64, 16))),
)
def test_random_calls(
    folder: Path, name: str, call: Call, blocks: tuple[int, int]
) -> None:
    assert is_right(loaded(kernel_of(name, *blocks), folder), call)


@pytest.mark.parametrize("name, call, blocks", OTHER_TURNS)
def test_gradients_are_those_of_the_definition(
    name: str, call: Call, blocks: tuple[int, int], folder: Path
) -> None:
    kernel = kernel_of(name, *blocks)
    step = step_for(kernel, call)
    own = loaded(kernel, folder)
    found = excess(step, by_kernels(step, own, (*step.learned,)))
    assert max(found.values()) <= 1, found


def test_tiles_of_more_bits_than_are_loaded_ahead(folder: Path) -> None:
    kernel, call = kernel_of("vertical_slash", 128, 32), Call(150, 170, 20, 0.1)
    own, step = loaded(kernel, folder), step_for(kernel, call)
    assert is_right(own, call, step)
    found = excess(step, by_kernels(step, own, (*step.learned,)))
    assert max(found.values()) <= 1, found


def test_gradients_have_the_same_bits_in_every_run(folder: Path) -> None:
    step = step_for(kernel_of("vertical_slash", 32, 32), Call(40, 50, 10, 0.3))
    own = loaded(step.kernel, folder)
    first, second = (by_kernels(step, own) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["vertical_slash", "flexible", "both_sides"])
def test_programs_may_share_what_one_query_tile_visits(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call(3, 90, 87, 0.2)
    own = loaded(kernel_of(name, 32, 32), folder)
    assert is_right(own, call)  # heads of one key/value head may be rows of one tile
    monkeypatch.setattr(own.module, "splits_of", lambda *rest: 3)
    assert is_right(own, call)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nothing_comes_from_hidden_pairs(folder: Path) -> None:
    """Keys that no query sees are infinite or NaN; the last one fills up columns."""
    kernel, call = kernel_of("vertical_slash", 32, 32), Call(30, 40, 9, 0.1)
    step = step_for(kernel, call)
    k, v = step.k.clone(), step.v.clone()
    k[:, :, 39], v[:, :, 39] = torch.nan, torch.nan  # behind every query
    v[:, :, 20] = torch.inf
    step = replace(step, k=k, v=v)
    own = loaded(kernel, folder)
    assert is_right(own, call, step)
    found, clean = (by_kernels(x, own) for x in (step, step_for(kernel, call)))
    assert torch.equal(found["k"][:, :, 39], torch.zeros_like(k[:, :, 39]))
    assert bool(clean["q"].isfinite().all())


@pytest.mark.parametrize("tile", [(32, 16), (16, 64)])
def test_each_tile_begins_where_the_one_before_ends(
    tile: tuple[int, int], folder: Path
) -> None:
    """At the first key that a diagonal shows and no tile holds; FULL if all are marked."""
    module = loaded(kernel_of("vertical_slash", 32, 32), folder).module
    n, (block_q, block_k) = 300, tile
    generator = torch.Generator().manual_seed(3)
    marks = torch.rand(3, n, generator=generator) < torch.tensor([[0.02], [0.4], [0.0]])
    marks[0, 90:190], marks[1, -1] = True, True
    held = torch.zeros(3, n + block_q + block_k, dtype=torch.int32)
    given = marks.to(torch.int8)
    tiles, _ = module.diagonal_tiles(given, None, held, 7, block_q, block_k)
    for row in range(3):
        wanted: tuple[list[int], list[int]] = [], []
        first, at = 0, torch.zeros(n + block_q + block_k, dtype=torch.int32)
        while first < n + block_q - 1:
            if not bool(marks[row, max(0, first - block_q + 1) : first + 1].any()):
                first += 1
                continue
            seen = marks[row, max(0, first - block_q + 1) : first + block_k]
            wanted[int(seen.sum()) == block_q + block_k - 1].append(first - 7)
            at[first : first + block_k] = 1
            first += block_k
        for found, starts in zip(tiles[row], wanted, strict=True):
            assert found[: len(starts)].tolist() == starts
            assert bool((found[len(starts) :] == module.NO_TILE).all())
        assert torch.equal(held[row], at)


def test_lists_wait_for_nothing(folder: Path) -> None:
    """As many entries as there can be: no number is read back from the device."""
    own = loaded(kernel_of("flexible", 32, 32), folder)
    step = step_for(own.kernel, Call(64, 256, 192, 0.1))
    pointers = own.module.as_pointers(step.inputs)
    found = [
        own.module.stripes_of(64, 256, 192, {}, tables, step.q.device)
        for tables in (pointers, [torch.zeros_like(x) for x in pointers])
    ]
    assert [x.shape for x in found[0][:9]] == [x.shape for x in found[1][:9]]


def test_stripes_are_kept_for_the_same_unchanged_inputs(folder: Path) -> None:
    module = loaded(kernel_of("only_columns", 32, 32), folder).module
    cpu, chosen = torch.device("cpu"), torch.zeros(1, 2, 90, dtype=torch.int8)

    def stripes() -> object:
        return module.kept_stripes(1, 90, 90, 0, {}, [chosen], cpu)

    newest = stripes()
    assert stripes() is newest
    chosen[0, 0, 40:] = 1
    assert stripes() is not newest


def test_text_is_formatted() -> None:
    for name, text in PROGRAMS.items():
        module = emit(kernel_of(name, 64, 64), text, name)
        assert_formatted(module)


MUTATIONS = [
    (
        "vertical_slash",
        "k = tl.where(is_held, n_k, k_rows)[None, :]",
        "k = k_rows[None, :]",
    ),
    (
        "vertical_slash",
        "count == BLOCK_Q + BLOCK_K - 1",
        "count >= 5",
    ),
    (
        "vertical_slash",
        "is_live = count + tl.cumsum(marks_at(marks, place, n) - left, axis=0) > 0",
        "is_live = place < 9",
    ),
    ("vertical_slash", "found |= row_bits", "found &= row_bits"),
    (
        "only_columns",
        "ends = [q0 + far, q0 + BLOCK_Q + near]",
        "ends = [q0 + far, q0 + near]",
    ),
    ("vertical_slash", "first_of(tiles, n_k - q0)", "first_of(tiles, -q0)"),
    ("vertical_slash", "shift = first.to", "shift = (first + 1 & 63).to"),
    ("vertical_slash", "words_at + (t + 1)", "words_at + t"),
    ("vertical_slash", "bits[3], first) & bits[4]", "bits[3], first)"),
]
BACKWARD_MUTATIONS = [
    ("s = tl.where(keep & ~is_chosen, s", "s = tl.where(keep, s"),
    ("n_k - 1 - q_offset", "n_k - q_offset"),
    ("q_offset + 1 - k0 - BLOCK_Q", "q_offset + 1 - k0 + BLOCK_Q"),
    ("last - tl.load(about + 1)", "last - tl.load(about + 2)"),
    ("tl.store(places, before + rows, mask=stored)", "tl.store(places, rows, stored)"),
]


def mutant(folder: Path, kernel: Kernel, old: str, new: str) -> TritonAttention:
    """The program with a mistake in its text."""
    text = emit(kernel, "", kernel.attention.name)
    assert old in text
    path = Store(folder).put(text.replace(old, new), "mutant", ".py")
    return TritonAttention(import_file(path), kernel, {"diagonals": 0})


@pytest.mark.parametrize("name, old, new", MUTATIONS)
def test_mistakes_are_found(name: str, old: str, new: str, folder: Path) -> None:
    kernel = kernel_of(name, 16, 32)
    assert not is_right(mutant(folder, kernel, old, new), Call(36, 40, 4, 0.15))


@pytest.mark.parametrize("old, new", BACKWARD_MUTATIONS)
def test_mistakes_in_gradients_are_found(old: str, new: str, folder: Path) -> None:
    kernel = kernel_of("vertical_slash", 16, 32)
    step = step_for(kernel, Call(52, 40, 4, 0.15))
    found = excess(step, by_kernels(step, mutant(folder, kernel, old, new)))
    assert max(found.values()) > 1
