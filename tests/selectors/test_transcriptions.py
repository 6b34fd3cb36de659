"""The transcriptions on cases small enough to check by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.selectors.chosen import logits, means, spread, until
from tests.selectors.flexprefill import flexprefill
from tests.selectors.minference import block_topk, vertical_slash
from tests.selectors.per_token import longheads, moba, nsa_selected, quest, sparsifiner
from tests.selectors.sparge import sparge
from tests.selectors.sparsed import sparsed
from tests.selectors.video import (
    jenga,
    paro,
    partition,
    video_blocks,
    vmoba,
    vmoba_topk,
)
from tests.selectors.xattention import xattention


def calls(n: int, d: int, loud: dict[int, int]) -> tuple[Tensor, Tensor]:
    """q of ones in channel 0, and k that answers it with `loud[key]`, else 0."""
    q, k = (torch.zeros(1, 1, n, d, dtype=torch.float64) for _ in range(2))
    q[..., 0] = d**0.5
    for key, value in loud.items():
        k[0, 0, key, 0] = value
    return q, k


def found(row: Tensor) -> list[int]:
    return row.nonzero().flatten().tolist()


def test_pieces() -> None:
    q, k = calls(4, 4, {2: 3})
    assert logits(q, k)[0, 0, 1].tolist() == [0, 0, 3, 0]
    assert means(k, 3)[0, 0, :, 0].tolist() == [1, 0]
    table = torch.tensor([[[[True, False], [True, True]]]])
    rows = torch.tensor([0, 0, 1])
    assert spread(table, rows, rows).int().tolist() == [
        [[[1, 1, 0], [1, 1, 0], [1, 1, 1]]]
    ]
    assert until(torch.tensor([0.5, 0.3, 0.2]), 0.5) == 2


def test_a_loud_key_is_a_vertical() -> None:
    q, k = calls(12, 4, {5: 9})
    chosen = vertical_slash(q, k, columns=3, slashes=1, last=4, first=2, near=1)
    assert found(chosen.sets["verticals"][0, 0]) == [0, 1, 5]
    assert found(chosen.sets["diagonals"][0, 0]) == [0]
    assert found(chosen.mask[0, 0, 4]) == [0, 1, 4]
    assert found(chosen.mask[0, 0, 9]) == [0, 1, 5, 9]


def test_what_each_query_finds_three_back_is_a_diagonal() -> None:
    n, d = 12, 16
    q, k = (torch.zeros(1, 1, n, d, dtype=torch.float64) for _ in range(2))
    for position in range(n):
        k[0, 0, position, position] = 9
        q[0, 0, position, max(position - 3, 0)] = 9
    chosen = vertical_slash(q, k, columns=1, slashes=2, last=6, first=1, near=1)
    assert found(chosen.sets["diagonals"][0, 0]) == [0, 3]
    assert found(chosen.mask[0, 0, 8]) == [0, 5, 8]


def test_block_topk_takes_the_loud_block_and_no_future() -> None:
    q, k = calls(8, 4, {3: 4, 6: 9})
    chosen = block_topk(q, k, blocks=1, block=2).sets["chosen"][0, 0]
    assert [found(row) for row in chosen] == [[0], [1], [1], [3]]


def test_flexprefill_knows_a_head_that_its_means_foretell() -> None:
    # Every query and key of a block alike: the mean query sees what the queries see.
    q, k = calls(16, 4, {})
    k[0, 0, 4:8, 0] = 6
    chosen = flexprefill(q, k, gamma=0.8, tau=0.2, least=4, block=4)
    assert chosen.sets["aware"].item()
    kept = chosen.sets["blocks"][0, 0]
    # Row 0 has one block, with all of its mass; the mass of the others is on block 1.
    assert {tuple(at) for at in kept.nonzero().tolist()} <= {
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 1),
    }
    # Two halves of a block that cancel out: the mean query foretells nothing.
    q[0, 0, ::2] *= -1
    k[0, 0, 4:8:2] *= -1
    lines = flexprefill(q, k, gamma=0.8, tau=0.2, least=4, block=4, unit=4)
    assert not lines.sets["aware"].item()
    assert lines.sets["columns"][0, 0, 1] and not lines.sets["blocks"].any()


def test_xattention_adds_up_antidiagonals() -> None:
    # One loud pair on an antidiagonal of a tile is heard, one beside it is not.
    n, d = 8, 16
    q, k = (torch.zeros(1, 1, n, d, dtype=torch.float64) for _ in range(2))
    q[0, 0, 6, 0] = k[0, 0, 3, 0] = 9  # 6 % 2 + 3 % 2 == 1
    heard = xattention(q, k, torch.tensor([0.9]), stride=2, block=2).sets["chosen"]
    assert found(heard[0, 0, 3]) == [0, 1, 3]
    k[0, 0, 3, 0], k[0, 0, 2, 0] = 0, 9  # 6 % 2 + 2 % 2 == 0
    deaf = xattention(q, k, torch.tensor([0.7]), stride=2, block=2).sets["chosen"]
    assert found(deaf[0, 0, 3])[:2] == [0, 1]  # four equal shares: the first of them
    assert deaf[0, 0, 3].sum() == 3


def test_sparge_keeps_what_is_not_alike() -> None:
    q, k = calls(8, 4, {})
    k[0, 0, :, 1] = torch.tensor([1.0, 1, 1, 1, 1, -1, -5, -5])
    q[0, 0, :, 1] = 4
    chosen = sparge(q, k, 0.5, similar=0.5, block_q=4, block_k=2)
    # The mean of all keys, -0.75, is taken off: block 2 has one of either sign.
    assert found(chosen.sets["alike_k"][0, 0]) == [0, 1, 3]
    assert found(chosen.mask[0, 0, 0])[-2:] == [4, 5]
    assert chosen.sets["chosen"][0, 0].sum(-1).tolist() == [1, 1]


def test_sparsed_chooses_twice() -> None:
    q, k = calls(8, 4, {1: 9, 5: 4})
    chosen = sparsed(q, k, prompt=4, select=0.25, block=2)
    # One block of four and one more: the loud one and that of key 5, which is late.
    assert found(chosen.sets["early"][0, 0, 0]) == [0]
    assert found(chosen.sets["late"][0, 0, 0]) == [2]


def test_moba_takes_the_own_chunk_and_the_best_before_it() -> None:
    q, k = calls(8, 4, {0: 1, 3: 5, 7: 9})
    chosen = moba(q, k, chunk=2, take=2)
    assert [found(row) for row in chosen.sets["chosen"][0, 0, ::2]] == [
        [0],
        [0, 1],
        [1, 2],
        [1, 3],
    ]
    assert found(chosen.mask[0, 0, 6]) == [2, 3, 6]


def test_longheads_forces_three_chunks() -> None:
    score = torch.zeros(1, 1, 12, 6)
    score[..., 2] = 1
    chosen = longheads(score, window=2, take=4, begin=4)
    assert found(chosen.sets["chosen"][0, 0, 11]) == [0, 2, 4, 5]
    assert found(chosen.mask[0, 0, 3]) == [0, 1, 2, 3]
    assert found(chosen.mask[0, 0, 10]) == [0, 1, 4, 5, 8, 9, 10]
    hidden = longheads(score, window=2, take=4, begin=4, own=0)
    assert found(hidden.mask[0, 0, 10]) == [0, 1, 4, 5, 8, 9]


def test_quest_bounds_a_page_from_above() -> None:
    q, k = calls(16, 4, {})
    q[..., 1] = -1
    k[0, 0, 2, 0] = 3  # a great key,
    k[0, 0, 7, 1] = -4  # a small one where the query is negative,
    k[0, 0, 9, 1] = 4  # and one that would only lower a score
    k[0, 0, 13, 0] = 1
    chosen = quest(q, k, budget=4, page=2)
    assert found(chosen.sets["chosen"][0, 0, 15]) == [1, 3, 6]


def test_nsa_adds_up_a_group() -> None:
    q = torch.zeros(1, 2, 12, 4, dtype=torch.float64)
    k = torch.zeros(1, 1, 12, 4, dtype=torch.float64)
    q[0, 0, :, 0] = q[0, 1, :, 1] = 2
    k[0, 0, 2:4, 0] = 3  # head 0 wants block 1, more than head 1 wants block 2
    k[0, 0, 4:6, 1] = 2
    chosen = nsa_selected(q, k, block=2, take=4, init=1, local=2)
    assert found(chosen.sets["chosen"][0, 1, 11]) == [0, 1, 4, 5]
    assert torch.equal(chosen.mask[:, 0], chosen.mask[:, 1])


def test_sparsifiner_rounds_up_and_shows_the_class_token_all() -> None:
    score = torch.arange(5.0).expand(1, 1, 5, 5)
    chosen = sparsifiner(score, percent=25)
    assert found(chosen.mask[0, 0, 0]) == [0, 1, 2, 3, 4]
    assert found(chosen.mask[0, 0, 3]) == [3, 4]


def test_vmoba_takes_turns() -> None:
    clip = (4, 4, 4)
    sizes = [partition(layer, clip, 2, (0, 2, 2), (2, 2, 2)) for layer in range(4)]
    assert sizes == [(2, 4, 4), (4, 2, 2), (2, 2, 2), (2, 4, 4)]
    blocks = [video_blocks(clip, size) for size in sizes]
    assert [int(at.max()) + 1 for at in blocks] == [2, 4, 8, 2]
    assert blocks[0][[0, 31, 32]].tolist() == [0, 0, 1]
    assert blocks[1][[0, 2, 8, 32]].tolist() == [0, 1, 2, 0]


def test_vmoba_counts_the_own_block_first() -> None:
    q, k = calls(8, 4, {1: 1, 3: 4, 5: 2})
    at = torch.arange(8) // 2
    # Means 0.5, 2, 1, 0 are shifted and scaled to 1/4, 1, 1/2, 0, which is 7/4 in all.
    chosen = vmoba(q, k, at, 0.5, "query_head").sets["chosen"][0, 0]
    assert [found(row) for row in chosen[::2]] == [[0, 1], [1], [1, 2], [1, 3]]
    more = vmoba(q, k, at, 0.5, "query_head", least=1).sets["chosen"][0, 0]
    assert found(more[2]) == [1, 2]
    # Over the head: own blocks have 14/4 of 14, so 14/4 more are needed: 4 times 1.
    whole = vmoba(q, k, at, 0.5).sets["chosen"][0, 0]
    assert whole.sum() == 8 + 4 and whole[:, 1].sum() == 2 + 4
    two = vmoba_topk(q, k, at, 2).sets["chosen"][0, 0]
    assert [found(row) for row in two[::2]] == [[0, 1], [1, 2], [1, 2], [1, 3]]


def test_jenga_keeps_the_crossing_block_neighbours_and_text() -> None:
    q, k = calls(10, 4, {0: 6, 1: 6})
    near = torch.eye(4, dtype=torch.bool)
    chosen = jenga(q, k, near, text=2, mass=0.3, drop=0.5, block=2)
    # One block has the mass; half of four blocks is two.
    assert chosen.sets["chosen"][0, 0].sum(-1).tolist() == [2, 2, 2, 2]
    assert found(chosen.mask[0, 0, 6])[:2] == [0, 1]
    assert found(chosen.mask[0, 0, 6])[-4:] == [6, 7, 8, 9]
    assert chosen.mask[0, 0, 8:].all()


def test_paro_cuts_blocks_in_the_order_of_the_head() -> None:
    bits = torch.eye(2, dtype=torch.bool).expand(2, 2, 2)
    mask = paro(bits, (2, 1, 2), ("FHW", "WHF"), text=1, block=2).mask[0]
    assert found(mask[0, 1]) == [0, 1, 2]  # a frame is a block
    assert found(mask[1, 1]) == [0, 1, 3]  # a column is a block
    assert mask[:, 0].all()
