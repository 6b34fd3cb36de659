"""What docs/language.md pins down of selections, in cases that can be checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import patternc
from tests.selection.programs import attention

NAN, INF = math.nan, math.inf


def members(
    folder: Path, selection: str, numbers: list[float], parameters: str = ""
) -> list[int]:
    """The keys that a selection holds of these numbers, one for each key."""
    clauses = f"input x[k] : float\nlet chosen = {selection}\nmask k in chosen"
    attn = attention(folder, clauses, parameters=parameters)
    q = torch.zeros(1, 1, 1, 4)
    k = torch.zeros(1, 1, len(numbers), 4)
    plan = attn.plan(q, k, x=torch.tensor(numbers))
    return [int(key) for key in plan.tables["chosen"][0, 0].nonzero()[:, 0]]


@pytest.mark.parametrize(
    ("selection", "numbers", "wanted"),
    [
        ("top(2, x[k])", [1.0, 3.0, 2.0], [1, 2]),
        ("top(2, x[k])", [1.0, 1.0, 1.0], [0, 1]),  # ties: the smaller key
        ("top(2, x[k])", [0.0, -0.0, 0.0], [0, 1]),  # 0 and -0 are equal
        ("top(2, x[k])", [NAN, -INF, -1.0], [1, 2]),  # NaN comes last
        ("top(3, x[k])", [NAN, NAN, -1.0, NAN], [0, 1, 2]),
        ("top(1, x[k])", [INF, 1.0, INF], [0]),
        ("top(0, x[k])", [1.0, 2.0], []),
        ("top(2.9, x[k])", [1.0, 3.0, 2.0], [1, 2]),  # rounded down
        ("top(2, x[k], always k == 0)", [0.0, 3.0, 2.0], [0, 1]),  # it counts
        ("top(1, x[k], always k < 2)", [0.0, 1.0, 2.0], [0, 1]),  # exactly they
        ("top(2, x[k], always k == 1)", [5.0, NAN, 2.0], [0, 1]),  # even NaN
        ("top(1, x[k], min 2)", [1.0, 3.0, 2.0], [1, 2]),
        ("top(3, x[k], max 1)", [1.0, 3.0, 2.0], [1]),
        ("top(3, x[k], max 1, always k < 2)", [1.0, 3.0, 2.0], [0, 1]),
        ("top_p(0.5, x[k])", [0.25, 0.5, 0.25], [1]),  # reached exactly
        ("top_p(0.6, x[k])", [0.25, 0.5, 0.25], [0, 1]),  # the crossing key is kept
        ("top_p(0.6, x[k], crossing drop)", [0.25, 0.5, 0.25], [1]),
        ("top_p(0.75, x[k], crossing drop)", [0.25, 0.5, 0.25], [0, 1]),
        ("top_p(0.3, x[k], crossing drop)", [0.25, 0.5, 0.25], []),
        ("top_p(0.3, x[k], crossing drop, min 1)", [0.25, 0.5, 0.25], [1]),
        ("top_p(0.5, x[k], always k == 0)", [0.25, 0.5, 0.25], [0, 1]),  # its mass
        ("top_p(0.0, x[k])", [0.25, 0.5, 0.25], []),
        ("top_p(1.0, x[k])", [0.25, 0.5, 0.25], [0, 1, 2]),
        ("top_p(1.0, x[k])", [0.5, 0.0, 0.5, -4.0, NAN], [0, 2]),  # no mass, no place
        ("top_p(0.9, x[k])", [0.0, 0.0], []),  # nothing to have a share of
        ("above(1.0, x[k])", [1.0, 1.5, NAN, INF], [1, 3]),
        ("above(1.0, x[k], always k == 0, max 2)", [0.0, 1.5, 7.0], [0, 2]),
        ("above(9.0, x[k], min 2)", [0.0, 1.5, 7.0], [1, 2]),
        ("x[k] < 1", [0.0, 1.0, NAN, -INF], [0, 3]),
        ("x[k] <= 1", [0.0, 1.0, NAN, 2.0], [0, 1]),
        ("2 >= x[k]", [1.0, 2.0, 3.0], [0, 1]),
        ("top(2, x[k] where k > 0)", [9.0, 1.0, 1.0], [1, 2]),  # not there
        ("top(2, x[k] where k > 0, always k == 0)", [9.0, 1.0, 1.0], [1, 2]),
        ("top(1, max(x[k] by k // 2))", [0.0, 2.0, 1.0, 1.0], [0]),
        ("top(1, sum(x[k] by k % 2), always k % 2 == 1)", [9.0, 2.0, 1.0, 1.0], [1]),
        ("top(1, entropy(x[k] by k // 2))", [1.0, 0.0, 0.5, 0.5], [1]),
    ],
)
def test_a_choice(
    selection: str, numbers: list[float], wanted: list[int], tmp_path: Path
) -> None:
    assert members(tmp_path, selection, numbers) == wanted


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_a_widened_selection_holds_what_reaches_a_chosen_key(
    backend: str, tmp_path: Path
) -> None:
    """Also before the first key, and `widened` of `widened` adds up."""
    clauses = """input x[k] : float
        let chosen = x[k] > 1
        let three = widened(chosen, 3)
        let five = widened(three, 3)
        mask k in three | k - 4 in five & q < 2"""
    attn = attention(tmp_path, clauses).backend(backend)
    q, k = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 8, 4)
    numbers = torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0])
    plan = attn.plan(q, k, x=numbers)
    assert plan.tables["three"].shape[-1] == 10  # from -2 on
    assert plan.counts()["three"].tolist() == [[6]]
    assert plan.counts()["five"].tolist() == [[5 + 5]]
    three, five = {0, 3, 4, 5}, set(range(-4, 1)) | set(range(1, 6))
    seen = attn.mask(8, 8, plan=plan, x=numbers).expand(1, 1, 8, 8)[0, 0]
    for row in range(8):
        wanted = {k for k in range(8) if k in three or (k - 4 in five and row < 2)}
        assert set(seen[row].nonzero()[:, 0].tolist()) == wanted
    v = torch.eye(8)[None, None]
    shares = seen.float() / seen.sum(-1, keepdim=True)
    torch.testing.assert_close(attn(q, k, v, plan=plan, x=numbers)[0, 0], shares)


def test_a_widened_selection_is_explained_as_it_is_written(tmp_path: Path) -> None:
    clauses = """let chosen = top(3, sum(scores by k))
        let wide = widened(chosen, 4)
        mask k in wide"""
    attn = attention(tmp_path, clauses)
    assert "wide = widened(top(3, sum(scores by k)), 4)" in str(attn.explain())


def test_a_budget_may_depend_on_data(tmp_path: Path) -> None:
    clauses = """input x[k] : float
        input n[h] : int
        let heavy = x[k] > 1
        let first = top(count(heavy) // 2 + 1, x[k])
        let each = top(n[h], x[k])
        mask k in first | k in each"""
    attn = attention(tmp_path, clauses, "heads 3")
    q, k = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 6, 4)
    numbers = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    plan = attn.plan(q, k, x=numbers, n=torch.tensor([1, 9, -4]))
    assert plan.counts()["first"].tolist() == [[3, 3, 3]]
    assert plan.counts()["each"].tolist() == [[1, 6, 0]]  # cut to what there is


def test_heads_of_a_group_share_a_set(tmp_path: Path) -> None:
    clauses = """input x[h, k] : float
        let alone = top(1, x[h, k])
        let shared = top(1, x[h, k] over g)
        let common = top(1, x[h, k], over h)
        mask k in alone | k in shared | k in common"""
    attn = attention(tmp_path, clauses, "heads 4 kv 2")
    rows = [[3.0, 0.0, 2.0], [0.0, 3.0, 2.0], [4.0, 0.0, 0.0], [4.0, 9.0, 0.0]]
    q, k = torch.zeros(1, 4, 1, 4), torch.zeros(1, 2, 3, 4)
    tables = attn.plan(q, k, x=torch.tensor(rows)).tables
    assert keys(tables["alone"]) == [0, 1, 0, 1]
    assert keys(tables["shared"]) == [2, 2, 1, 1]
    assert keys(tables["common"]) == [1, 1, 1, 1]


def keys(table: Tensor) -> list[int]:
    return [int(key) for key in table[0].long().argmax(-1)]


def test_scores_are_those_of_the_score_line(tmp_path: Path) -> None:
    clauses = """score s + 100.0 * k / N  for h == 1
        let last = top(1, scores per q)
        mask (q, k) in last"""
    attn = attention(tmp_path, clauses, "heads 2")
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, 5, 4, generator=generator)
    last = attn.plan(q, k).tables["last"][0]
    assert last[1].nonzero()[:, 1].tolist() == [4] * 5
    assert torch.equal(last[0].long().argmax(-1), (q @ k.mT)[0, 0].argmax(-1))


def test_a_row_of_infinite_logits_gives_no_nan(tmp_path: Path) -> None:
    clauses = """input x[q, k] : float
        let mass = sum(softmax(x[q, k]) by k)
        let chosen = top(1, mass)
        mask k in chosen"""
    attn = attention(tmp_path, clauses)
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
    numbers = torch.tensor([[-INF, -INF], [0.0, 1.0]])
    plan = attn.plan(q, k, x=numbers)
    assert plan.tables["chosen"].tolist() == [[[False, True]]]


def test_labels_are_keys(tmp_path: Path) -> None:
    clauses = """input label[k] : int
        let chosen = top(1, sum(scores by label[k] % 4))
        mask label[k] % 4 in chosen"""
    attn = attention(tmp_path, clauses)
    q = torch.ones(1, 1, 1, 2)
    k = torch.tensor([1.0, 5.0, 1.0, 5.0, -9.0])[:, None].expand(5, 2)[None, None]
    labels = torch.tensor([0, 1, 0, 3, 3])
    mask = attn.plan(q, k, label=labels)
    assert mask.tables["chosen"].tolist() == [[[False, True, False, False]]]
    seen = attn.mask(1, 5, plan=mask, label=labels)
    assert seen.tolist() == [[[[False, True, False, False, False]]]]


LAYOUT = "layout film = text[3] + video[f = 2, y = 2, x = 3]\n"


def test_coordinates_are_keys_of_their_segment(tmp_path: Path) -> None:
    """VMoBA's blocks: a token outside of the segment belongs to none."""
    path = tmp_path / "film.pat"
    path.write_text(
        LAYOUT
        + """attention film_blocks {
        heads 1
        layout film
        let blocks = Q @ mean(K by k.f, k.x // 2)
        let near = top(1, blocks per q)
        mask k in text | (q, k.f, k.x // 2) in near
    }"""
    )
    attn = patternc.load(path)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 15, 4, generator=generator).double()
    frame = torch.arange(12) // 6
    column = torch.arange(12) % 3 // 2
    means = torch.zeros(2, 2, 4).double()
    for f in range(2):
        for x in range(2):
            means[f, x] = k[0, 0, 3:][(frame == f) & (column == x)].mean(0)
    best = (q[0, 0] @ means.flatten(0, 1).T).argmax(-1)
    wanted = torch.zeros(15, 15, dtype=torch.bool)
    wanted[:, :3] = True
    wanted[:, 3:] = best[:, None] == 2 * frame + column
    plan = attn.plan(q, k)
    assert torch.equal(plan.mask(0), wanted)
    dense = torch.softmax((q @ k.mT / 2).masked_fill(~wanted, -torch.inf), -1) @ k
    torch.testing.assert_close(attn(q, k, k), dense)


def test_a_map_over_tokens_reads_one_over_their_segment(tmp_path: Path) -> None:
    """A token outside of the segment has no entry to read."""
    path = tmp_path / "film.pat"
    path.write_text(
        LAYOUT
        + """attention centred {
        heads 1
        layout film
        let apart = norm(K - mean(K by k.f))
        let far = apart > 0
        mask k in far
    }"""
    )
    q, k = torch.randn(2, 1, 1, 15, 4, generator=torch.Generator().manual_seed(0))
    plan = patternc.load(path).plan(q, k)
    assert plan.tables["far"][0, 0].tolist() == [False] * 3 + [True] * 12
