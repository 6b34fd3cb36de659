"""Calling a pattern from Python: load, call, look at the mask, explain.

In: 03_streaming.pat beside this file. Out: what it prints. Runs without a GPU, where
the tiled backend computes the live tiles in plain PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import torch

import patternc

attn = patternc.load(Path(__file__).with_name("03_streaming.pat"), recent=64)

q = torch.randn(1, 4, 300, 64, requires_grad=True)  # [batch, heads, queries, head dim]
k, v = torch.randn(2, 1, 2, 300, 64).unbind()  # two key/value heads

out = attn(q, k, v)
(gradient,) = torch.autograd.grad(out.square().mean(), q)
print(attn)
print("output", tuple(out.shape), "gradient", tuple(gradient.shape))

# One more query, against all keys: the default offset puts it after the last key.
step, lse = attn(q[:, :, -1:], k, v, return_lse=True)
print("decoding agrees:", torch.allclose(step, out[:, :, -1:], atol=1e-5))

visible = attn.mask(300, 300)
print("density of head 0:", visible[0].float().mean().item())
print(attn.explain())
