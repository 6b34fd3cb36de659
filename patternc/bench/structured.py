"""Queries and keys whose attention has sinks, a local part, columns and diagonals.

In: the sizes of a call and a seed. Out: `Structured`: q, k and v in memory linear in the
length, and where the heavy groups are. Not its job: a model: the parts are those that
papers report of long prompts (MInference, arXiv 2407.02490; StreamingLLM, 2309.17453),
in shares that are given, so that what a selector ought to find is known.

Random normal tensors would not do for timing selectors: their attention is flat, and
what is chosen from it means nothing. Here a logit is a sum of

- a rotary part in three quarters of the channels: keys carry one vector turned by their
  position, as in rotary embeddings, and queries the same vector turned by their
  position, so that the product is a * f(q - k) with f(0) = 1. The waves come in levels
  of harmonics, the longest twice the length: f falls about as the logarithm of the
  distance, and hardly fluctuates beyond. That is local attention; a second vector,
  turned by the position less an offset, gives a diagonal at q - k == offset;
- a channel in which the first `SINKS` keys are 1 and the others 0;
- a channel in which some keys anywhere are 1: heavy columns. Keys of this kind and the
  one before have no rotary part: every later query sees them alike;
- normal noise in the other channels, with standard deviation 1.

The height of each part follows from its share of the softmax of the last query: a few
steps of a fixed point, head by head, on the exact profile over all distances. With 128
channels shares are met within 0.1 at any length; with 64 from 32K tokens on the local
part falls short, as there are too few waves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SINKS = 4
COLUMNS = 16
SLASHES = 1
NEAR = 64
"""Keys at less than this distance are local; a diagonal has half of it on each side."""

SHARES = (0.30, 0.30, 0.12, 0.14, 0.14)
"""Of sinks, the local part, columns, diagonals and all the rest, before heads differ."""

SPREAD = 0.4
"""How much heads differ: the standard deviation of the logarithm of a share."""

QUIET = 0.1
"""What the values of sinks are multiplied by: they carry little in real models."""

_STEPS = 30
_HIGHEST = 24.0
_HARMONICS = 6
_SHORTEST_WAVE = 128


@dataclass(frozen=True, slots=True)
class Structured:
    """q [B, H, N, D], k and v [B, KV, N, D]; what is heavy in them.

    `columns` [B, KV, COLUMNS] are keys, `slashes` [B, H, SLASHES] distances q - k;
    `shares` [B, H, 5] those of the last query that were aimed at, as in `SHARES`.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    columns: Tensor
    slashes: Tensor
    shares: Tensor


@dataclass(frozen=True, slots=True)
class _Waves:
    """Cosines and sines of position times frequency, [N, P], weights [P], f [N]."""

    cos: Tensor
    sin: Tensor
    weight: Tensor
    profile: Tensor


def structured(
    batch: int,
    heads: int,
    kv_heads: int,
    length: int,
    head_dim: int,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Structured:
    """Draw the tensors of a square call; the same for the same arguments and device.

    Raises `ValueError` for less than 32 channels, a number of channels that 8 does not
    divide, or a length below 4 * `NEAR`, where the parts would overlap.
    """
    if head_dim < 32 or head_dim % 8:
        raise ValueError(f"expected 32, 40, 48, ... channels, got {head_dim}")
    if length < 4 * NEAR:
        raise ValueError(f"expected a length of {4 * NEAR} or more, got {length}")
    generator = torch.Generator(device).manual_seed(seed)
    waves = _waves(length, 3 * head_dim // 8, torch.device(device))
    shape = (batch, kv_heads, length, head_dim)
    q = torch.empty((batch, heads, *shape[2:]), dtype=dtype, device=device)
    k = torch.empty(shape, dtype=dtype, device=device)
    v = torch.empty(shape, dtype=dtype, device=device)
    columns = torch.empty((batch, kv_heads, COLUMNS), dtype=torch.int64, device=device)
    slashes = torch.empty((batch, heads, SLASHES), dtype=torch.int64, device=device)
    shares = torch.empty((batch, heads, len(SHARES)), device=device)
    for element in range(batch):
        for head in range(kv_heads):
            columns[element, head] = _drawn(length, COLUMNS, generator)
            k[element, head] = _keys(waves, columns[element, head], head_dim, generator)
            v[element, head] = _normal(length, head_dim, generator)
            v[element, head, :SINKS] *= QUIET
        for head in range(heads):
            slashes[element, head] = _drawn(length // 2, SLASHES, generator)
            shares[element, head] = _jittered(generator)
            parts = _heights(waves, slashes[element, head], shares[element, head])
            offsets = slashes[element, head]
            q[element, head] = _queries(waves, offsets, *parts, head_dim, generator)
    return Structured(q, k, v, columns, slashes, shares)


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device)


def _drawn(below: int, count: int, generator: torch.Generator) -> Tensor:
    """Different whole numbers from `2 * NEAR` on: clear of sinks and the local part."""
    step = max((below - 2 * NEAR) // count, 1)
    noise = torch.rand(count, generator=generator, device=generator.device)
    starts = torch.arange(count, device=generator.device) * step
    return 2 * NEAR + starts + (noise * max(step - NEAR, 1)).long()


def _jittered(generator: torch.Generator) -> Tensor:
    """The shares of a head."""
    device = generator.device
    noise = torch.randn(len(SHARES), generator=generator, device=device)
    shares = torch.tensor(SHARES, device=device) * torch.exp(SPREAD * noise)
    return shares / shares.sum()


def _waves(length: int, planes: int, device: torch.device) -> _Waves:
    """Levels of `_HARMONICS` frequencies, the waves of each a part of the last one's."""
    levels = max(planes // _HARMONICS, 1)
    shrink = (_SHORTEST_WAVE / (2 * length)) ** (1 / max(levels - 1, 1))
    frequencies, weights = [], []
    for plane in range(planes):
        level, harmonic = divmod(plane, _HARMONICS)
        wave = 2 * length * shrink ** min(level, levels - 1)
        frequencies.append(2 * math.pi * (harmonic + 1) / wave)
        weights.append(_HARMONICS - harmonic if level < levels else 0)
    angles = torch.arange(length, dtype=torch.float64, device=device)[:, None]
    # In float64: an angle of a million radians has no fraction left in float32.
    angles = angles * angles.new_tensor(frequencies)
    cos, sin = angles.cos().float(), angles.sin().float()
    weight = cos.new_tensor(weights) / sum(weights)
    return _Waves(cos, sin, weight, cos @ weight)


def _heights(
    waves: _Waves, slashes: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the rotary parts [1 + SLASHES], of a sink and of a column.

    For the last query: the softmax over its profile is brought to the shares.
    """
    length = len(waves.cos)
    distance = torch.arange(length, device=slashes.device)
    shifted = (distance - slashes[:, None]).abs()
    bumps = torch.cat([waves.profile[None], waves.profile[shifted]])
    near = torch.cat([(distance < NEAR)[None], shifted < NEAR // 2])
    rest = ~near.any(0)
    wanted = torch.cat([shares[1:2], shares[3:4].expand(SLASHES) / SLASHES]) / shares[4]
    heights = torch.ones(1 + SLASHES, device=slashes.device)
    for _ in range(_STEPS):
        masses = torch.exp(heights @ bumps)
        others = (masses * rest).sum()
        found = (masses * near).sum(1) / others
        change = torch.log(wanted / found) / 2
        heights = (heights + change).clamp(0, _HIGHEST)
    others = (torch.exp(heights @ bumps) * rest).sum()
    sink = torch.log(shares[0] / shares[4] * others / SINKS)
    column = torch.log(shares[2] / shares[4] * others / COLUMNS)
    return heights, sink, column


def _keys(
    waves: _Waves, columns: Tensor, head_dim: int, generator: torch.Generator
) -> Tensor:
    """The keys of a head, [N, D], float32."""
    length = len(waves.cos)
    marks = torch.zeros(length, 2, device=columns.device)
    marks[:SINKS, 0] = 1
    marks[columns, 1] = 1
    turned = 1 - marks.sum(1, keepdim=True)
    noise = _normal(length, head_dim // 4 - 2, generator)
    return torch.cat([waves.cos * turned, waves.sin * turned, marks, noise], dim=1)


def _queries(
    waves: _Waves,
    slashes: Tensor,
    heights: Tensor,
    sink: Tensor,
    column: Tensor,
    head_dim: int,
    generator: torch.Generator,
) -> Tensor:
    """The queries of a head, [N, D], float32, for logits q.k / sqrt(D)."""
    length = len(waves.cos)
    root = head_dim**0.5
    # cos(a - b) and sin(a - b) for b = offset * frequency, from the same tables.
    turn = torch.cat([slashes.new_zeros(1), slashes])
    weights = heights[:, None] * root * waves.weight
    along = (weights * waves.cos[turn]).sum(0)
    across = (weights * waves.sin[turn]).sum(0)
    cos = waves.cos * along + waves.sin * across
    sin = waves.sin * along - waves.cos * across
    marks = torch.stack([sink, column]) * root
    width = head_dim // 4 - 2
    noise = _normal(length, width, generator) * (head_dim / width) ** 0.5
    return torch.cat([cos, sin, marks.expand(length, 2), noise], dim=1)
