"""Selectors for video: VMoBA, Jenga, PAROAttention.

In: q and k of the tokens of a clip in raster order (VMoBA, PARO) or in the order of a
curve (Jenga). Out: `Chosen`.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from tests.selectors.chosen import (
    Chosen,
    blocks_of,
    count_of,
    for_query_heads,
    logits,
    means,
    spread,
)

Sizes = tuple[int, int, int]
"""Frames, rows, columns."""


def partition(layer: int, clip: Sizes, one: int, two: Sizes, three: Sizes) -> Sizes:
    """VMoBA's block sizes in a layer: in turn of frames, of places, of both.

    `one` is the number of frames of a 1-D block; of `two` the rows and columns count.
    """
    frames, height, width = clip
    turns = ((one, height, width), (frames, two[1], two[2]), three)
    return turns[layer % 3]


def video_blocks(clip: Sizes, tile: Sizes) -> Tensor:
    """The block of each token in raster order, [N]."""
    counts = [count_of(size, part) for size, part in zip(clip, tile, strict=True)]
    found = []
    for frame, row, column in product(*map(range, clip)):
        f, y, x = frame // tile[0], row // tile[1], column // tile[2]
        found.append((f * counts[1] + y) * counts[2] + x)
    return torch.tensor(found)


def vmoba(
    q: Tensor,
    k: Tensor,
    at: Tensor,
    tau: float = 0.25,
    scope: str = "head_global",
    least: int = 0,
) -> Chosen:
    """VMoBA (arXiv 2506.23858): for each query the blocks with `tau` of the scores.

    `at` [N] is the block of each token. Scores are shifted and scaled to 0..1 within
    the scope: a query of a head ("query_head") or a head ("head_global"). The query's
    own block is always there, and what it has counts; at least `least` others of a
    scope are taken. "chosen" is [B, H, N, blocks].
    """
    b, h, n, _ = q.shape
    keys = for_query_heads(k, h)
    count = int(at.max()) + 1
    mean = torch.stack([keys[:, :, at == x].mean(2) for x in range(count)], 2)
    gate = q @ mean.mT
    own = at[:, None] == torch.arange(count)
    chosen = own.expand(b, h, n, count).clone()
    for i, j in product(range(b), range(h)):
        rows = [[r] for r in range(n)] if scope == "query_head" else [list(range(n))]
        for some in rows:
            part = gate[i, j, some]
            part = (part - part.min()) / (part.max() - part.min())
            is_own = own[some]
            need = max(0.0, tau - float(part[is_own].sum() / part.sum()))
            others = part.masked_fill(is_own, 0).flatten()
            order = others.argsort(descending=True)
            held = 0.0
            flat = torch.zeros(len(others), dtype=torch.bool)
            for taken, place in enumerate(order.tolist()):
                if held >= need and taken >= least:
                    break
                flat[place] = True
                held += float(others[place] / part.sum())
            chosen[i, j, some] |= flat.view_as(is_own)
    return Chosen(chosen[..., at], {"chosen": chosen})


def vmoba_topk(q: Tensor, k: Tensor, at: Tensor, take: int) -> Chosen:
    """VMoBA without training: the own block and the best others, `take` in all."""
    keys = for_query_heads(k, q.shape[1])
    count = int(at.max()) + 1
    mean = torch.stack([keys[:, :, at == x].mean(2) for x in range(count)], 2)
    gate = (q @ mean.mT).masked_fill(at[:, None] == torch.arange(count), torch.inf)
    best = gate.topk(min(take, count), dim=-1).indices
    chosen = torch.zeros(gate.shape, dtype=torch.bool).scatter(-1, best, True)
    return Chosen(chosen[..., at], {"chosen": chosen})


def jenga(
    q: Tensor,
    k: Tensor,
    near: Tensor,
    text: int,
    mass: float = 0.3,
    drop: float = 0.75,
    block: int = 128,
) -> Chosen:
    """Jenga (arXiv 2505.16864): blocks by mass, those of neighbours, and the text.

    The last `text` tokens are text; what is before is a whole number of blocks.
    `near` [blocks, blocks] says which blocks hold neighbours in the clip. "chosen" is
    [B, H, row blocks, key blocks] of the video.
    """
    n = q.shape[2]
    video = n - text
    count = video // block
    shares = logits(means(q[:, :, :video], block), means(k[:, :, :video], block))
    shares = shares.softmax(-1)
    ranked = shares.sort(-1, descending=True)
    number = (ranked.values.cumsum(-1) <= mass).sum(-1) + 1
    number = number.clamp(min=int((1 - drop) * count))
    taken = torch.arange(count) < number[..., None]
    chosen = torch.zeros(shares.shape, dtype=torch.bool)
    chosen.scatter_(-1, ranked.indices, taken)
    mask = torch.ones(*q.shape[:2], n, n, dtype=torch.bool)
    at = blocks_of(video, block)
    mask[:, :, :video, :video] = spread(chosen | near, at, at)
    return Chosen(mask, {"chosen": chosen})


def paro(
    bits: Tensor, clip: Sizes, orders: tuple[str, ...], text: int, block: int = 64
) -> Chosen:
    """PAROAttention (arXiv 2506.16054): blocks of the permuted video, by a table.

    `bits` [H, blocks, blocks] is that of a step and layer; `orders` names for each head
    the axes from the slowest to the fastest, such as "HWF". The first `text` tokens see
    and are seen by all.
    """
    video = clip[0] * clip[1] * clip[2]
    names = {"F": 0, "H": 1, "W": 2}
    positions = torch.arange(video).view(clip)
    mask = torch.ones(1, len(orders), text + video, text + video, dtype=torch.bool)
    for head, order in enumerate(orders):
        raster = positions.permute([names[axis] for axis in order]).flatten()
        place = torch.empty_like(raster)
        place[raster] = torch.arange(video)
        at = place // block
        mask[0, head, text:, text:] = bits[head][at[:, None], at]
    return Chosen(mask, {"bits": bits[None]})
