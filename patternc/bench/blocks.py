"""FlexAttention's block masks, made of our exact tiles.

In: a planned attention and the sizes of a call. Out: the `BlockMask` that
`create_block_mask` would make, without its n_q x n_k work and compilation, so that a
peer runs on exactly the tiles it would choose. Not its job: timing. That the two are
equal is a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from patternc import check, passes
from patternc.bench.suite import MaskMod
from patternc.plan.expand import head_classes, live_tiles
from patternc.plan.kernel import Kernel, Schedule, TileCover
from patternc.plan.tiling import plan
from patternc.source import Source
from patternc.syntax.parse import parse


def plain_kernel(source: Source, block: int) -> Kernel:
    """The plan on tiles of `block` x `block`, the tokens in the caller's order."""
    attention = passes.final_masks(check.lower(parse(source), None, {}))
    found = plan(attention, Schedule(block_q=block, block_k=block))
    covers = tuple(_without_order(cover) for cover in found.covers)
    return Kernel(found.attention, covers, found.schedule)


def block_mask(
    source: Source,
    mask_mod: MaskMod,
    length: int,
    inputs: Mapping[str, Tensor],
    *,
    per_head: bool,
    device: torch.device,
    block: int = 128,
) -> BlockMask:
    """The block mask of `length` queries and keys, as `create_block_mask` makes it."""
    kernel = plain_kernel(source, block)
    tables = {name: item.cpu().numpy() for name, item in inputs.items()}
    tiles = -(-length // block)
    heads = kernel.attention.heads if per_head else 1
    live = np.zeros((2, heads, tiles, tiles), dtype=np.bool_)
    for cover in kernel.covers:
        for same in head_classes(cover):
            found = live_tiles(
                cover, kernel.schedule, same[0], length, length, 0, {}, tables
            )
            for head in same if per_head else same[:1]:
                live[found.partial.astype(int), head, found.qt, found.kt] = True
    lists = [_lists(torch.from_numpy(kind)[None], device) for kind in live[::-1]]
    return BlockMask.from_kv_blocks(
        *lists[0], *lists[1], block, mask_mod, seq_lengths=(length, length)
    )


def _without_order(cover: TileCover) -> TileCover:
    return replace(cover, order=())


def _lists(live: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Numbers of blocks [1, H, tiles] and their key blocks, those in front."""
    live = live.to(device)
    order = torch.argsort(live.to(torch.int8), dim=-1, descending=True, stable=True)
    return live.sum(-1).to(torch.int32), order.to(torch.int32)
