"""The choice among groups: threshold searches, against sorting one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.backends.triton.planning import module_of
from tests.kernels import CAUSAL

OPEN, ALWAYS = 1, 2
VALUES = [-math.inf, -2.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3.0, math.inf, math.nan]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return module_of(CAUSAL, tmp_path_factory.mktemp("select"))


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def searched(
    request: pytest.FixtureRequest, module: ModuleType
) -> Iterator[ModuleType]:
    """Rows that a program searches alone, or several programs together."""
    small = {"SHORT_ROW": 0, "SEGMENT_BLOCK": 64, "MASS_BLOCK": 64, "SEGMENT": 64}
    held = {name: vars(module)[name] for name in small}
    vars(module).update(small if request.param else {})
    yield module
    vars(module).update(held)


def ranked(values: Tensor, kinds: Tensor) -> list[int]:
    """Open groups: the greatest first, NaN last, equals by their number."""
    numbers = values.tolist()
    open_groups = [g for g, kind in enumerate(kinds.tolist()) if kind == OPEN]

    def place(g: int) -> tuple[bool, float, int]:
        is_nan = math.isnan(numbers[g])
        return is_nan, 0.0 if is_nan else -numbers[g], g

    return sorted(open_groups, key=place)


def wanted_top(values: Tensor, classes: Tensor, amounts: list[int]) -> Tensor:
    chosen = (classes == ALWAYS).repeat(len(values) // len(classes), 1)
    for row, amount in enumerate(amounts):
        left = max(0, amount - int(chosen[row].sum()))
        chosen[row, ranked(values[row], classes[row % len(classes)])[:left]] = True
    return chosen


def wanted_top_p(values: Tensor, classes: Tensor, p: float, keeps: bool) -> Tensor:
    chosen = (classes == ALWAYS).repeat(len(values) // len(classes), 1)
    for row in range(len(values)):
        kinds = classes[row % len(classes)]
        mass = [x if x > 0 else 0.0 for x in values[row].tolist()]
        target = p * sum(
            m for m, kind in zip(mass, kinds.tolist(), strict=True) if kind
        )
        have = sum(
            m for m, is_in in zip(mass, chosen[row].tolist(), strict=True) if is_in
        )
        for g in ranked(values[row], kinds):
            if have >= target or (not keeps and have + mass[g] > target):
                break
            chosen[row, g] = True
            have += mass[g]
    return chosen


def rows_of(
    groups: int, seed: int, dyadic: bool, rows: int = 4
) -> tuple[Tensor, Tensor]:
    """Two rows of classes, some of values, with ties, NaN and infinities or not."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (2, groups), generator=generator, dtype=torch.int8)
    if dyadic:
        values = torch.randint(0, 9, (rows, groups), generator=generator) / 8
    else:
        at = torch.randint(0, len(VALUES), (rows, groups), generator=generator)
        values = torch.tensor(VALUES)[at]
    values[1] = torch.randn(groups, generator=generator).abs().bfloat16().float()
    return values, classes


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    groups=st.integers(1, 200),
    seed=st.integers(0, 2**31),
    amounts=st.lists(st.integers(-1, 220), min_size=4, max_size=4),
)
def test_top(module: ModuleType, groups: int, seed: int, amounts: list[int]) -> None:
    values, classes = rows_of(groups, seed, dyadic=False)
    found = module.choose_top(values, classes, torch.tensor(amounts, dtype=torch.int32))
    assert torch.equal(found, wanted_top(values, classes, amounts))


def test_top_of_long_rows(searched: ModuleType) -> None:
    values, classes = rows_of(120, 0, dyadic=False, rows=2)
    found = searched.choose_top(values, classes, 50)
    assert torch.equal(found, wanted_top(values, classes, [50] * 2))
    ties = torch.ones(1, 120)
    found = searched.choose_top(ties, torch.ones(1, 120, dtype=torch.int8), 100)
    assert found.nonzero()[:, 1].tolist() == list(range(100))


@pytest.mark.parametrize(("p", "keeps"), [(0.9, True), (0.5, False)])
def test_top_p(searched: ModuleType, p: float, keeps: bool) -> None:
    values, classes = rows_of(120, 1, dyadic=True, rows=2)
    classes[1] = OPEN
    found = searched.choose_top_p(values, classes, p, keeps)
    assert torch.equal(found, wanted_top_p(values, classes, p, keeps))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_of_the_mass_and_none(module: ModuleType, p: float) -> None:
    values, classes = rows_of(60, 2, dyadic=False, rows=2)
    values.nan_to_num_(nan=-1.0, posinf=2.0, neginf=0.0)
    found = module.choose_top_p(values, classes, p, True)
    is_open = classes == OPEN
    wanted = (classes == ALWAYS) | (is_open & (values > 0) & (p > 0))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_mass_without_end(searched: ModuleType, keeps: bool) -> None:
    """Its first group reaches it; no group goes beyond it, so without it all are in."""
    values = torch.ones(2, 70)
    values[0, 30], values[0, 40] = math.inf, math.inf
    found = searched.choose_top_p(values, torch.ones(1, 70).to(torch.int8), 0.5, keeps)
    assert found[0].nonzero().flatten().tolist() == ([30] if keeps else [*range(70)])
    assert int(found[1].sum()) == 35


def test_bounds(module: ModuleType) -> None:
    """At least and at most so many, as the rank says; always members whatever."""
    values, classes = rows_of(100, 3, dyadic=True)
    classes[0, 40:] = ALWAYS
    amounts = [20, 45, 60, 0]
    leasts = [40, 0, 0, 7]
    pairs = zip(leasts, amounts, strict=True)
    bounded = [max(least, min(50, n)) for least, n in pairs]
    least = torch.tensor(leasts, dtype=torch.int32)
    amount = torch.tensor(amounts, dtype=torch.int32)
    found = module.choose_top(values, classes, amount, least, 50)
    assert torch.equal(found, wanted_top(values, classes, bounded))


def test_lists_are_ascending(module: ModuleType) -> None:
    table = torch.rand(3, 130, generator=torch.Generator().manual_seed(0)) < 0.4
    table[1] = False
    places, counts = module.list_chosen(table, 130)
    for row in range(3):
        wanted = table[row].nonzero().flatten().tolist()
        assert places[row, : counts[row]].tolist() == wanted
    short, counts = module.list_chosen(table, 5)
    assert torch.equal(short[0], places[0, :5])
    assert int(counts[0]) == int(table[0].sum())


def test_nothing_to_choose_from(module: ModuleType) -> None:
    none = torch.zeros(0, 7), torch.ones(1, 7, dtype=torch.int8)
    assert module.choose_top(*none, 3).shape == (0, 7)
    empty = torch.zeros(2, 0), torch.ones(1, 0, dtype=torch.int8)
    assert module.choose_top_p(*empty, 0.5, True).shape == (2, 0)
    absent = torch.ones(2, 9), torch.zeros(1, 9, dtype=torch.int8)
    assert not bool(module.choose_top(*absent, 3).any())
